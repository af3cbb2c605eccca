import { request, type IncomingHttpHeaders } from 'node:http'
import { request as secureRequest } from 'node:https'

type Where = { port: number; tls: boolean }
export type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer }

/** One request to a server on this machine, outside every clock. Certificates made here are taken as they are. */
export function call(
  { port, tls }: Where,
  method: string,
  path: string,
  { headers = {}, body }: { headers?: Record<string, string>; body?: Buffer } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      port,
      method,
      path,
      headers: {
        ...headers,
        ...(body || method === 'POST' ? { 'content-length': String(body?.byteLength ?? 0) } : {}),
      },
    }
    const outgoing = tls ? secureRequest({ ...options, rejectUnauthorized: false }) : request(options)
    outgoing.once('error', reject)
    outgoing.once('response', (incoming) => {
      const chunks: Buffer[] = []
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
      incoming.once('error', reject)
      incoming.once('end', () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(chunks) }),
      )
    })
    outgoing.end(body)
  })
}

/** The same, for what must be answered with a certain status. @throws with what was answered instead */
export async function expectStatus(status: number, answering: Promise<Answer>, what: string): Promise<Answer> {
  const answer = await answering
  if (answer.status !== status)
    throw new Error(`${what} was answered ${answer.status}: ${answer.body.toString('utf8', 0, 500)}`)
  return answer
}

export const basic = (name: string, password: string) =>
  `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
