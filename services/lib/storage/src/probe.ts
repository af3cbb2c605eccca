import type { BlobStorage } from './blob-storage.ts'
import { newObjectKey } from './object-key.ts'

/** Writes an object, reads it back and deletes it. */
export async function probe(storage: BlobStorage): Promise<void> {
  const key = newObjectKey()
  const sent = Buffer.from(`probe ${key}`)
  const { state } = await storage.append(key, null, 0, only(sent), { last: true })
  await storage.complete(key, state, sent.length)
  const received: Buffer[] = await storage.read(key).toArray()
  const { failed } = await storage.remove([key])
  if (!Buffer.concat(received).equals(sent)) throw new Error('what was written reads back differently')
  if (failed[0]) throw new Error('what was written cannot be deleted', { cause: failed[0].error })
}

async function* only(chunk: Uint8Array) {
  yield chunk
}
