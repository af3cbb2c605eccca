import { describe, expect, it } from '@jest/globals'
import { SeenObjects } from './seen-objects.ts'

const object = { key: 'o/1', sizeBytes: 5 }

function storeThat(stat: () => Promise<{ sizeBytes: number } | null>) {
  const asked = { times: 0 }
  return { asked, stat: () => (asked.times++, stat()) }
}

describe('SeenObjects', () => {
  it.each([
    ['is there', { sizeBytes: 5 }, true],
    ['is gone', null, false],
    ['has another size', { sizeBytes: 4 }, false],
  ])('asks the store for an object that was not seen lately: it %s', async (_, found, held) => {
    const store = storeThat(async () => found)
    const seen = new SeenObjects()
    for (const times of held ? [1, 1] : [1, 2]) {
      expect(await seen.holds(store, object)).toBe(held)
      expect(store.asked.times).toBe(times)
    }
  })

  it('asks nothing about one that this process has just written', async () => {
    const store = storeThat(async () => null)
    const seen = new SeenObjects()
    seen.note(object.key)
    expect(await seen.holds(store, object)).toBe(true)
    expect(store.asked.times).toBe(0)
  })

  it.each([
    ['fails', () => Promise.reject(new Error('no route to the store'))],
    ['is silent', () => new Promise<null>(() => undefined)],
  ])('believes the record, and asks again, when the store %s', async (_, stat) => {
    const store = storeThat(stat)
    const seen = new SeenObjects()
    for (const times of [1, 2]) {
      expect(await seen.holds(store, object)).toBe(true)
      expect(store.asked.times).toBe(times)
    }
  })
})
