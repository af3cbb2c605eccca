import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { problems } from '@haven/errors'

export type Answered = {
  status: number
  headers: IncomingHttpHeaders
  body: string
  /** Of HTTPS: until when the certificate holds, and why this machine would not trust it (null when it does). */
  certificate: { validTo: string; distrusted: string | null } | null
}

export type AskOptions = {
  readonly method?: string
  readonly body?: Uint8Array
  /** From the call to the end of the answer. Default 5,000. */
  readonly waitMs?: number
}

const MAX_BODY_CHARACTERS = 1024 * 1024

/**
 * Asks the door of an installation. Whether its certificate can be trusted is told and not enforced: this is how a person finds out.
 * Redirects are not followed.
 * @throws serviceUnavailable
 */
export function askDoor(
  url: string,
  { method = 'GET', body: sent, waitMs = 5_000 }: AskOptions = {},
): Promise<Answered> {
  const secure = url.startsWith('https:')
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(problems.serviceUnavailable({ message: `${url} does not answer: ${cause.message}` }, { cause }))
    const send = secure ? httpsRequest : httpRequest
    const req = send(
      url,
      { method, agent: false, rejectUnauthorized: false, signal: AbortSignal.timeout(waitMs) } as Parameters<
        typeof send
      >[1],
      (res) => {
        const certificate = secure ? certificateOf(res.socket as TLSSocket) : null
        let body = ''
        res.setEncoding('utf8')
        res.on('data', (text: string) => {
          body += text
          if (body.length > MAX_BODY_CHARACTERS) res.destroy(new Error('it does not stop answering'))
        })
        res.once('error', failed)
        res.once('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, body, certificate }))
      },
    )
    req.once('error', failed)
    req.end(sent)
  })
}

function certificateOf(socket: TLSSocket) {
  const { authorized, authorizationError } = socket
  return {
    validTo: socket.getPeerCertificate().valid_to,
    distrusted: authorized ? null : String(authorizationError),
  }
}
