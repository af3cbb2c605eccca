import type { IncomingMessage, ServerResponse } from 'node:http'

/** Cookies of a request; of a name that is there twice, the first counts. */
export function cookiesOf(req: IncomingMessage): Map<string, string> {
  const cookies = new Map<string, string>()
  for (const pair of (req.headers.cookie ?? '').split(';')) {
    const equals = pair.indexOf('=')
    if (equals === -1) continue
    const name = pair.slice(0, equals).trim()
    if (!cookies.has(name)) cookies.set(name, pair.slice(equals + 1).trim())
  }
  return cookies
}

/** `value` null deletes the cookie. Scripts never see it, other sites never send it (threats.md A59). */
export function setCookie(
  res: ServerResponse,
  name: string,
  value: string | null,
  { secure }: { secure: boolean },
): void {
  const attributes = [
    'Path=/',
    'HttpOnly',
    'SameSite=Strict',
    ...(secure ? ['Secure'] : []),
    ...(value === null ? ['Max-Age=0'] : []),
  ]
  res.appendHeader('Set-Cookie', [`${name}=${value ?? ''}`, ...attributes].join('; '))
}
