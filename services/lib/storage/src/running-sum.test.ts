import { createHash, randomBytes } from 'node:crypto'
import { describe, expect, it } from '@jest/globals'
import { beginSum, type RunningSum } from './running-sum.ts'

const bytes = randomBytes(1_000_000)
const expected = (to: number, algorithm = 'sha256') => createHash(algorithm).update(bytes.subarray(0, to)).digest('hex')

const add = async (sum: RunningSum, from: number, to: number) => sum.add(bytes.subarray(from, to))

describe.each([false, true])('a running sum, on another thread: %j', (aside) => {
  it.each(['sha256', 'sha512'] as const)('is that of all bytes in their order: %s', async (algorithm) => {
    const sum = beginSum(algorithm, { aside })
    await add(sum, 0, 1000)
    expect(await sum.digest()).toBe(expected(1000, algorithm))
    await add(sum, 1000, 1_000_000)
    expect(await sum.digest()).toBe(expected(1_000_000, algorithm))
  })

  it('goes on without its copy, and the copy without it', async () => {
    const sum = beginSum('sha256', { aside })
    await add(sum, 0, 10)
    const copy = sum.copy()
    await add(copy, 10, 500)
    await add(sum, 10, 20)
    expect([await sum.digest(), await copy.digest()]).toEqual([expected(20), expected(500)])
  })

  it('keeps many apart that go on at once', async () => {
    const sums = Array.from({ length: 20 }, () => beginSum('sha256', { aside }))
    await Promise.all(
      sums.map(async (sum, n) => {
        for (let at = 0; at < 10_000; at += 1000) await add(sum, at, at + 1000 - (at === 9000 ? n : 0))
      }),
    )
    expect(await Promise.all(sums.map((sum) => sum.digest()))).toEqual(sums.map((_, n) => expected(10_000 - n)))
  })

  it('takes pieces of all sizes, in shared memory or not, in their order', async () => {
    const sum = beginSum('sha256', { aside })
    const shared = Buffer.from(new SharedArrayBuffer(300_000))
    for (let at = 0, n = 0; at < bytes.length; n++) {
      const size = [70_000, 3, 16 * 1024, 1, 65_536, 200_000][n % 6]!
      const piece = n % 2 === 0 ? shared.subarray(n, n + size) : Buffer.alloc(size)
      const taken = bytes.copy(piece, 0, at)
      await sum.add(piece.subarray(0, taken))
      // What was added is its owner's again.
      piece.fill(0)
      at += taken
    }
    expect(await sum.digest()).toBe(expected(1_000_000))
  })
})
