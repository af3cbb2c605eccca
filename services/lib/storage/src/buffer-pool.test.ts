import { describe, expect, it } from '@jest/globals'
import { AlignedBuffers, BufferPool, KeptBuffers } from './buffer-pool.ts'

const KiB = 1024
const MiB = 1024 * KiB

describe('buffers to send from', () => {
  it('are large for few streams, and no larger than what is left', () => {
    const pool = new BufferPool(8 * MiB)
    pool.enter()
    expect([100 * MiB, 300 * KiB, 256 * KiB, 1].map((left) => pool.take(left).length)).toEqual([
      MiB,
      MiB,
      256 * KiB,
      32 * KiB,
    ])
  })

  it('get smaller with more streams, and all that is given out and kept stays near the limit', () => {
    const pool = new BufferPool(8 * MiB)
    const held: Buffer[] = []
    for (let stream = 0; stream < 128; stream++) {
      pool.enter()
      held.push(pool.take(16 * MiB), pool.take(16 * MiB))
    }
    const sizes = held.map(({ length }) => length)
    expect(sizes.slice(0, 2)).toEqual([MiB, MiB])
    expect(sizes.at(-1)).toBe(32 * KiB)
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(8 * MiB + 256 * 32 * KiB)
    for (const buffer of held) pool.give(buffer)
    const resident = held.reduce((sum, { length }) => sum + length, 0)
    expect(resident).toBeGreaterThan(0)
    expect(resident).toBeLessThanOrEqual(8 * MiB)
  })

  it('are a crowd when two of the smallest each are more than the limit', () => {
    const pool = new BufferPool(MiB)
    for (let stream = 0; stream < 16; stream++) pool.enter()
    expect(pool.isCrowded).toBe(false)
    pool.enter()
    expect(pool.isCrowded).toBe(true)
    pool.leave()
    expect(pool.isCrowded).toBe(false)
  })

  it('count no more when they were dropped', () => {
    const pool = new BufferPool(2 * MiB)
    pool.enter()
    for (let n = 0; n < 100; n++) {
      const buffer = pool.take(16 * MiB)
      expect(buffer.length).toBe(MiB)
      pool.drop(buffer)
    }
  })
})

describe('kept buffers', () => {
  it('are used again, and give way to those of another size', () => {
    const kept = new KeptBuffers(MiB)
    const [large, small] = [kept.take(MiB), kept.take(64 * KiB)]
    kept.give(large)
    expect(kept.take(MiB)).toBe(large)
    kept.give(large)
    kept.take(64 * KiB)
    expect([large.length, small.length]).toEqual([0, 64 * KiB])
  })
})

describe('buffers to gather in', () => {
  const lies = ({ byteOffset, length }: Buffer) => [byteOffset, byteOffset + length] as const

  it('are large for few uploads, no larger than what comes, smaller for more', () => {
    const gathering = new AlignedBuffers()
    gathering.enter()
    const sizes = [Infinity, 16 * MiB, MiB, 1].map((expected) => gathering.take(expected).length)
    expect(sizes).toEqual([MiB, MiB, 512 * KiB, 256 * KiB])
    const only = [MiB, 700_000, 300_000, 1].map((expected) => gathering.take(expected, true).length)
    expect(only).toEqual([MiB, MiB, 512 * KiB, 256 * KiB])
    for (let n = 1; n < 16; n++) gathering.enter()
    expect(gathering.take(Infinity).length).toBe(512 * KiB)
    expect(gathering.take(MiB, true).length).toBe(MiB)
    for (let n = 16; n < 32; n++) gathering.enter()
    expect(gathering.take(Infinity).length).toBe(256 * KiB)
  })

  it('are aligned and never lie in each other, however they come and go; those beyond lie elsewhere', () => {
    const gathering = new AlignedBuffers()
    const held: Buffer[] = []
    for (let n = 0; n < 40; n++) {
      gathering.enter()
      held.push(gathering.take(Infinity), gathering.take(Infinity))
      if (n % 3 === 0) gathering.give(held.splice(n % held.length, 1)[0]!)
    }
    const aligned = held.filter((buffer) => gathering.isAligned(buffer)).sort((a, b) => a.byteOffset - b.byteOffset)
    expect(aligned.length).toBeLessThan(held.length)
    expect(aligned.every(({ byteOffset }) => byteOffset % 4096 === 0)).toBe(true)
    expect(aligned.every((buffer, n) => n === 0 || lies(aligned[n - 1]!)[1] <= lies(buffer)[0])).toBe(true)
    for (const buffer of held) gathering.give(buffer)
    for (let n = 0; n < 40; n++) gathering.leave()
    gathering.enter()
    const again = Array.from({ length: 16 }, () => gathering.take(Infinity))
    expect(again.every((buffer) => buffer.length === MiB && gathering.isAligned(buffer))).toBe(true)
  })
})
