import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** What a handler says; written to the socket in one place. */
export type Answer = {
  status: number
  headers?: Record<string, string>
  /** An object is sent as JSON; absent is an empty body. */
  body?: unknown
  /** JSON in pieces, instead of `body`: what may be too long to be held. */
  pieces?: AsyncIterable<string>
  /** Writes all of the answer by itself, instead of `body`. Rejects only before it has begun. */
  write?: (res: ServerResponse) => Promise<void>
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

/** Sends an answer as its pieces come. One that fails cuts the connection, so that a part never looks whole. */
export async function sendPieces(res: ServerResponse, status: number, pieces: AsyncIterable<string>): Promise<void> {
  res.statusCode = status
  res.setHeader('Content-Type', JSON_TYPE)
  try {
    await pipeline(Readable.from(pieces), res)
  } catch (error) {
    // The client left: nobody is there to be told, and its leaving is no fault of ours.
    if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error
  }
}

const notFoundPage =
  '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title></head><body><h1>404 Not found</h1></body></html>\n'

/** Outside the API, what does not exist is a page and not an envelope. */
export const sendNotFoundPage = (res: ServerResponse, { head = false } = {}): void =>
  send(res, { status: 404, headers: { 'Content-Type': 'text/html; charset=utf-8' }, body: notFoundPage }, { head })
