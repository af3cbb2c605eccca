import { describe, expect, it } from '@jest/globals'
import { collectAtRest } from './collect-at-rest.ts'

const MIB = 1024 * 1024

/** Collections by the time that it has looked ten times. */
function collections(of: { cpuMs: () => number; youngBytes: number }): Promise<number> {
  let [collected, looks] = [0, 0]
  return new Promise((resolve) => {
    const collecting = collectAtRest({
      everyMs: 1,
      gc: () => collected++,
      cpuMs: () => {
        if (++looks > 10) {
          collecting[Symbol.dispose]()
          resolve(collected)
        }
        return of.cpuMs()
      },
      youngBytes: () => of.youngBytes,
    })
  })
}

describe('collectAtRest', () => {
  it('collects when nothing is done and the young generation is large, and not again and again', async () => {
    expect(await collections({ cpuMs: () => 0, youngBytes: 16 * MIB })).toBe(1)
  })

  it('lets a process be that works', async () => {
    expect(await collections({ cpuMs: () => performance.now(), youngBytes: 16 * MIB })).toBe(0)
  })

  it('lets one be that has little to give back', async () => {
    expect(await collections({ cpuMs: () => 0, youngBytes: MIB })).toBe(0)
  })

  it('finds the young generation in what V8 tells', async () => {
    const kept = Array.from({ length: 200_000 }, (_, index) => ({ index }))
    let collected = 0
    using _collecting = collectAtRest({ everyMs: 1, gc: () => collected++, cpuMs: () => 0 })
    while (collected === 0) {
      kept.push({ index: kept.length })
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    expect(collected).toBeGreaterThan(0)
  })
})
