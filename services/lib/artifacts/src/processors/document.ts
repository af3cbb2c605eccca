import { readAll } from './bounded.ts'
import type { AdditionContent, Content, Layer } from './processor.ts'

const MAX_BYTES = 32 * 1024 * 1024

/** A layer that is a document, as it was pushed. Null when it is too long to be shown. */
export async function documentOf({ open }: Content, layer: Layer | undefined): Promise<AdditionContent | null> {
  if (!layer || layer.sizeBytes > MAX_BYTES) return null
  const bytes = await open(layer)
  const body = bytes && (await readAll(bytes, MAX_BYTES))
  return body && { contentType: contentTypeOf(layer.mediaType), body: body.toString('utf8') }
}

// The layer's own type is for whoever pushed it to choose, and might be one that a browser runs (threats.md A94).
const contentTypeOf = (mediaType: string) =>
  /[+/]json$/.test(mediaType) ? 'application/json; charset=utf-8' : 'text/plain; charset=utf-8'
