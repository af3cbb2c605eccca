import { describe, expect, it } from '@jest/globals'
import { inTime } from './in-time.ts'

const untilAborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))

describe('inTime', () => {
  it('answers what the work answers, or throws what it throws', async () => {
    expect(await inTime(async () => 7)).toBe(7)
    await expect(inTime(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken')
  })

  it('says that one may ask again when the work takes too long', async () => {
    await expect(inTime(untilAborted, 1)).rejects.toMatchObject({ status: 503, headers: { 'Retry-After': '1' } })
  })

  it('tells of other reasons as they are, also after that time', async () => {
    const failing = (signal: AbortSignal) =>
      untilAborted(signal).catch(() => {
        throw new Error('broken')
      })
    await expect(inTime(failing, 1)).rejects.toThrow('broken')
  })
})
