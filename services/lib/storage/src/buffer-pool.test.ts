import { describe, expect, it } from '@jest/globals'
import { AlignedBuffers, BufferPool, GATHERED_BYTES, KeptBuffers } from './buffer-pool.ts'

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
      64 * KiB,
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
    expect(sizes.at(-1)).toBe(64 * KiB)
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(8 * MiB + 256 * 64 * KiB)
    for (const buffer of held) pool.give(buffer)
    const resident = held.reduce((sum, { length }) => sum + length, 0)
    expect(resident).toBeGreaterThan(0)
    expect(resident).toBeLessThanOrEqual(8 * MiB)
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
  it('are aligned and used again; those beyond are freed at once', () => {
    const gathering = new AlignedBuffers()
    const all = Array.from({ length: 66 }, () => gathering.take())
    expect(all.filter((buffer) => gathering.isAligned(buffer))).toHaveLength(64)
    expect(all.every(({ byteOffset, length }) => byteOffset % 4096 === 0 && length === GATHERED_BYTES)).toBe(true)
    for (const buffer of all) gathering.give(buffer)
    expect(all.filter(({ length }) => length === 0)).toHaveLength(2)
    expect(all.slice(0, 64)).toContain(gathering.take())
  })
})
