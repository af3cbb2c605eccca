import type { IncomingMessage } from 'node:http'
import { problems } from '@haven/errors'

/** Whether a request has a body, arrived or not. */
export function hasBody({ headers }: Pick<IncomingMessage, 'headers'>): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/**
 * The whole body of a request. Refuses on the first byte over the limit.
 * @throws problems.payloadTooLarge (413), problems.badRequest when the client stopped early (400)
 */
export async function readBody(req: IncomingMessage, { limitBytes }: { limitBytes: number }): Promise<Buffer> {
  const announced = Number(req.headers['content-length'] ?? 0)
  if (announced > limitBytes) throw problems.payloadTooLarge({ limitBytes })
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    const done = (settle: () => void) => {
      req.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
      settle()
    }
    const onData = (chunk: Buffer) => {
      size += chunk.length
      if (size > limitBytes) {
        req.pause()
        done(() => reject(problems.payloadTooLarge({ limitBytes })))
      } else chunks.push(chunk)
    }
    const onEnd = () => done(() => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size)))
    const onError = (cause: unknown) =>
      done(() => reject(problems.badRequest({ message: 'the request body is not complete' }, { cause })))
    const onClose = () => onError(undefined)
    req.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose)
  })
}

export interface JsonLimits {
  readonly limitBytes?: number
  readonly maxDepth?: number
  readonly maxKeys?: number
}

/**
 * A JSON body within the limits of threats.md §5. Undefined when there is no body.
 * @throws problems.payloadTooLarge (413), problems.unprocessable when it is no JSON (422), problems.badRequest for depth, keys and NUL (400)
 */
export async function readJson(req: IncomingMessage, limits: JsonLimits = {}): Promise<unknown> {
  return parseJson(await readBody(req, { limitBytes: limits.limitBytes ?? 1024 * 1024 }), limits)
}

/** As `readJson`, for bytes that are already here. */
export function parseJson(body: Uint8Array, { maxDepth = 32, maxKeys = 10_000 }: JsonLimits = {}): unknown {
  if (body.length === 0) return undefined
  let text: string
  let value: unknown
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body)
    value = JSON.parse(text)
  } catch (cause) {
    throw problems.unprocessable({ failures: ['the body is not JSON in UTF-8'] }, { cause })
  }
  checkShape(value, maxDepth, maxKeys)
  // Postgres has no U+0000 (threats.md A77). JSON spells it in one way; a backslash that is escaped itself escapes nothing.
  if (/(?<!\\)(?:\\\\)*\\u0000/.test(text)) {
    throw problems.badRequest({ message: 'a text in the body holds a NUL character' })
  }
  return value
}

function checkShape(value: unknown, maxDepth: number, maxKeys: number): void {
  let keys = 0
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > maxDepth) throw problems.badRequest({ message: `the body is nested deeper than ${maxDepth} levels` })
    const next: unknown[] = []
    for (const node of level) {
      if (typeof node !== 'object' || node === null) continue
      const children: unknown[] = Array.isArray(node) ? node : Object.values(node)
      keys += children.length
      if (keys > maxKeys) throw problems.badRequest({ message: `the body has more than ${maxKeys} keys and entries` })
      for (const child of children) if (typeof child === 'object' && child !== null) next.push(child)
    }
    level = next
  }
}
