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

type CookieOptions = {
  readonly secure: boolean
  /** Default: everywhere. */
  readonly path?: string
  /** Lax: links of other sites bring it along. Default: nothing of another site does (threats.md A59). */
  readonly sameSite?: 'Strict' | 'Lax'
}

/** `value` null deletes the cookie. Scripts never see it. */
export function setCookie(
  res: ServerResponse,
  name: string,
  value: string | null,
  { secure, path = '/', sameSite = 'Strict' }: CookieOptions,
): void {
  const attributes = [
    `Path=${path}`,
    'HttpOnly',
    `SameSite=${sameSite}`,
    ...(secure ? ['Secure'] : []),
    ...(value === null ? ['Max-Age=0'] : []),
  ]
  res.appendHeader('Set-Cookie', [`${name}=${value ?? ''}`, ...attributes].join('; '))
}
