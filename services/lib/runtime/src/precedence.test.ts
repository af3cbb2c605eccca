import { describe, expect, it } from '@jest/globals'
import { Precedence } from './precedence.ts'

const MIB = 1024 * 1024

/** A clock that a test sets forward. */
function testClock() {
  let now = 1000
  const later: { at: number; call: () => void }[] = []
  return {
    now: () => now,
    after: (ms: number, call: () => void) => void later.push({ at: now + ms, call }),
    /** To the next of what is to be called, which is called. */
    next() {
      const first = later.toSorted((a, b) => a.at - b.at)[0]!
      later.splice(later.indexOf(first), 1)
      now = Math.max(now, first.at)
      first.call()
    },
    pass: (ms: number) => (now += ms),
    get expected() {
      return later.length
    },
  }
}

function setUp() {
  const clock = testClock()
  const precedence = new Precedence(clock)
  const read: string[] = []
  const ask = (name: string) =>
    precedence.ask(() => {
      read.push(name)
      precedence.brought(MIB)
    })
  return { clock, precedence, read, ask }
}

describe('Precedence', () => {
  it('lets long bodies come as they do while nobody waits for little', () => {
    const { clock, precedence, read, ask } = setUp()
    precedence.answered()
    clock.pass(10)
    for (const name of ['a', 'b', 'a']) expect(ask(name)).toBeNull()
    expect(read).toEqual(['a', 'b', 'a'])
  })

  it('has them pause behind each other, in the order of asking, while short requests come', () => {
    const { clock, precedence, read, ask } = setUp()
    precedence.answered()
    expect(ask('a')).toBeNull()
    for (const name of ['b', 'c', 'a']) expect(ask(name)).not.toBeNull()
    expect(read).toEqual(['a'])
    clock.next()
    expect(read).toEqual(['a', 'b'])
    precedence.answered()
    clock.next()
    expect(read).toEqual(['a', 'b', 'c'])
    precedence.answered()
    clock.next()
    expect(read).toEqual(['a', 'b', 'c', 'a'])
    expect(clock.expected).toBe(0)
  })

  it('lets all of them come at once when no more short requests come', () => {
    const { clock, precedence, read, ask } = setUp()
    precedence.answered()
    ask('a')
    ask('b')
    ask('c')
    clock.pass(10)
    clock.next()
    expect(read).toEqual(['a', 'b', 'c'])
  })

  it('forgets who does not want it any more', () => {
    const { clock, precedence, read, ask } = setUp()
    precedence.answered()
    ask('a')
    ask('gone')!()
    ask('b')
    expect(clock.expected).toBe(1)
    clock.next()
    expect(read).toEqual(['a', 'b'])
  })
})
