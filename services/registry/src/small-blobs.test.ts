import { randomBytes } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import { digestOf } from '@haven/oci'
import { MemoryStorage, newObjectKey, ObjectCorrupt, ObjectMissing } from '@haven/storage'
import { SmallBlobs } from './small-blobs.ts'

async function storeWith(bytes: Buffer) {
  const storage = new MemoryStorage()
  const key = newObjectKey()
  const { state } = await storage.append(
    key,
    null,
    0,
    (async function* () {
      yield bytes
    })(),
  )
  await storage.complete(key, state, bytes.length)
  let reads = 0
  const read = storage.read.bind(storage)
  storage.read = (...given) => (reads++, read(...given))
  return { storage, key, reads: () => reads }
}

describe('SmallBlobs', () => {
  it('keeps a small blob from the first time on', async () => {
    const bytes = randomBytes(1000)
    const { storage, key, reads } = await storeWith(bytes)
    const blobs = new SmallBlobs(storage)
    for (let n = 0; n < 3; n++)
      expect(bytes.equals((await blobs.bytes(key, digestOf(bytes), bytes.length))!)).toBe(true)
    expect(reads()).toBe(1)
  })

  it('keeps a larger one when it is asked for again, one copy for all who do', async () => {
    const bytes = randomBytes(700_000)
    const { storage, key, reads } = await storeWith(bytes)
    const blobs = new SmallBlobs(storage)
    expect(await blobs.bytes(key, digestOf(bytes), bytes.length)).toBeNull()
    expect(reads()).toBe(0)
    const many = await Promise.all(Array.from({ length: 50 }, () => blobs.bytes(key, digestOf(bytes), bytes.length)))
    expect(many.every((one) => one === many[0])).toBe(true)
    expect(bytes.equals(many[0]!)).toBe(true)
    expect(reads()).toBe(1)
  })

  it('keeps nothing of a failed read', async () => {
    const bytes = randomBytes(10)
    const { storage, key } = await storeWith(bytes)
    const blobs = new SmallBlobs(storage)
    await expect(blobs.bytes('0/other', digestOf(bytes), 10)).rejects.toThrow(ObjectMissing)
    await expect(blobs.bytes('0/other', digestOf(bytes), 10)).rejects.toThrow(ObjectMissing)
    expect(bytes.equals((await blobs.bytes(key, digestOf(bytes), bytes.length))!)).toBe(true)
  })

  it('keeps nothing that is not what its digest says', async () => {
    const bytes = randomBytes(1000)
    const { storage, key } = await storeWith(bytes)
    const blobs = new SmallBlobs(storage)
    for (let n = 0; n < 2; n++) {
      await expect(blobs.bytes(key, digestOf(randomBytes(1000)), 1000)).rejects.toThrow(ObjectCorrupt)
    }
    expect(bytes.equals((await blobs.bytes(key, digestOf(bytes), 1000))!)).toBe(true)
  })
})
