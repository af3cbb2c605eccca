import { describe, expect, it } from '@jest/globals'
import { TwoGenerations } from './two-generations.ts'

describe('TwoGenerations', () => {
  it('forgets what was not used for a generation, and keeps what was', () => {
    const cache = new TwoGenerations<number>(2)
    cache.set('a', 1)
    cache.set('b', 2)
    cache.set('c', 3)
    expect(cache.get('a')).toBe(1)
    cache.set('d', 4)
    expect([cache.get('a'), cache.get('b'), cache.get('d')]).toEqual([1, undefined, 4])
  })

  it('counts each value once, as heavy as it is', () => {
    const cache = new TwoGenerations<string>(Infinity, 10, (_, value) => value.length)
    cache.set('a', 'xxxx')
    cache.set('a', 'xxxxxxxx')
    cache.set('a', 'xx')
    cache.set('b', 'xxxxxxxx')
    expect([cache.get('a'), cache.get('b')]).toEqual(['xx', 'xxxxxxxx'])
    cache.delete('a')
    cache.delete('b')
    expect([cache.get('a'), cache.get('b')]).toEqual([undefined, undefined])
  })
})
