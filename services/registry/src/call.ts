import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ArtifactDeps, PullCounter, PullLog } from '@haven/artifacts'
import { problems } from '@haven/errors'
import { writeHead, type HeaderList } from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import type { Access } from './access.ts'
import type { Moved, RegistryMetrics } from './registry-metrics.ts'
import type { SmallBlobs } from './small-blobs.ts'

/** One request under `/v2`. */
export type Call = {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly query: URLSearchParams
  readonly moved: Moved
}

/** What every handler gets. */
export type RegistryContext = {
  readonly artifacts: ArtifactDeps
  readonly access: Access
  readonly pulls: PullCounter
  readonly pullLog: PullLog
  readonly smallBlobs: SmallBlobs
  /** The name a project has now; null when there is none. */
  readonly projectName: (id: number) => Promise<string | null>
  readonly blobReads: 'stream' | 'redirect'
  readonly settings: SettingsReader
  readonly metrics: RegistryMetrics
}

export type Headers = Record<string, string | number | readonly string[]>

/** Answers without a body. */
export function answer(call: Call, status: number, headers: Headers = {}): void {
  // RFC 9110, 8.6: with 204 there is no length, and with 304 it would be that of the 200.
  const sized = status === 204 || status === 304 || call.req.method === 'HEAD' || 'Content-Length' in headers
  begin(call, status, sized ? headers : { ...headers, 'Content-Length': 0 })
  call.res.end()
}

const MAX_WARNING_BYTES = 4096

/** OCI Distribution, "Warnings": texts that clients show to their users, at most 4 KiB of them. */
export function warn({ res }: Call, texts: readonly string[] | undefined): void {
  if (!texts?.length) return
  let left = MAX_WARNING_BYTES
  const values = texts
    .map((text) => `299 - "${text.replaceAll(/[^\u0020-\u007e]/g, '?').replaceAll(/["\\]/g, String.raw`\$&`)}"`)
    .filter((value) => (left -= value.length) >= 0)
  if (values.length > 0) res.setHeader('Warning', values)
}

/** Begins an answer that has no header yet; the caller ends it. */
export function begin({ req, res }: Call, status: number, headers: Headers): void {
  const list: HeaderList = []
  for (const name of Object.keys(headers)) {
    const value = headers[name]!
    list.push(name, typeof value === 'object' ? [...value] : value)
  }
  writeHead(req, res, status, list)
}

export function answerJson(call: Call, value: unknown, headers: Headers = {}): void {
  const body = JSON.stringify(value)
  const type = { 'Content-Type': 'application/json; charset=utf-8' }
  begin(call, 200, { ...type, ...headers, 'Content-Length': Buffer.byteLength(body) })
  call.res.end(call.req.method === 'HEAD' ? undefined : body)
}

const MAX_PAGE = 10_000
const MAX_CURSOR_LENGTH = 512

/**
 * `n` and `last` of a listing. Without `n` the page is as long as a page can be; a larger one is clamped.
 * @throws badRequest for what is no number of entries, or no text that could stand in a list (threats.md A41).
 */
export function readPage(query: URLSearchParams): { limit: number; last: string | null } {
  const n = query.get('n')
  if (n !== null && !/^\d{1,20}$/.test(n))
    throw problems.badRequest({ message: `invalid pagination: n is ${JSON.stringify(n)}` })
  const last = query.get('last')
  // oxlint-disable-next-line no-control-regex -- Postgres has no U+0000, and no name has any of them
  if (last !== null && (last.length > MAX_CURSOR_LENGTH || /[\u0000-\u001f\u007f]/.test(last))) {
    throw problems.badRequest({ message: 'invalid pagination: last is no name' })
  }
  return { limit: n === null ? MAX_PAGE : Math.min(Number(n), MAX_PAGE), last: last === '' ? null : last }
}

/** Whether an `If-None-Match` or `If-Match` header names this entity tag; weak tags compare as strong ones would (RFC 9110, 13.1.2). */
export function matchesEtag(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}
