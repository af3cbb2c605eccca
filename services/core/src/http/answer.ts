import type { ServerResponse } from 'node:http'

/** What a handler says; written to the socket in one place. */
export type Answer = {
  status: number
  headers?: Record<string, string>
  /** An object is sent as JSON; absent is an empty body. */
  body?: unknown
}

export const ok = (body?: unknown): Answer => ({ status: 200, ...(body === undefined ? {} : { body }) })

/** `location` is path-only: clients cut the id out of it (clients.md, Terraform provider). */
export const created = (location: string): Answer => ({ status: 201, headers: { Location: location } })

export const text = (body: string, contentType: string): Answer => ({
  status: 200,
  headers: { 'Content-Type': contentType },
  body,
})

// Without a charset, as Harbor's (harbor-api.md §1); its errors name one.
const JSON_TYPE = 'application/json'

export function send(res: ServerResponse, { status, headers = {}, body }: Answer, { head = false } = {}): void {
  res.statusCode = status
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
  if (body === undefined) {
    res.setHeader('Content-Length', '0')
    res.end()
    return
  }
  const bytes = Buffer.from(typeof body === 'string' && 'Content-Type' in headers ? body : JSON.stringify(body))
  if (!res.hasHeader('Content-Type')) res.setHeader('Content-Type', JSON_TYPE)
  res.setHeader('Content-Length', String(bytes.length))
  res.end(head ? undefined : bytes)
}

const notFoundPage =
  '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title></head><body><h1>404 Not found</h1></body></html>\n'

/** Outside the API, what does not exist is a page and not an envelope. */
export const sendNotFoundPage = (res: ServerResponse, { head = false } = {}): void =>
  send(res, { status: 404, headers: { 'Content-Type': 'text/html; charset=utf-8' }, body: notFoundPage }, { head })
