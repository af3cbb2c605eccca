import { describe, expect, it } from '@jest/globals'
import { Csrf } from './csrf.ts'

describe('Csrf', () => {
  const csrf = new Csrf(Buffer.from('one secret'))
  const nonce = csrf.newNonce()
  const token = csrf.token(nonce, 'session-a')

  it('accepts its token, which looks different each time', () => {
    expect(csrf.check(token, nonce, 'session-a')).toBe(true)
    expect(csrf.token(nonce, 'session-a')).not.toBe(token)
    expect(new Csrf(Buffer.from('one secret')).check(token, nonce, 'session-a')).toBe(true)
  })

  it.each([
    ['another session', token, nonce, 'session-b'],
    ['no session', token, nonce, ''],
    ['another browser', token, csrf.newNonce(), 'session-a'],
    ['a token made up', 'AAAA', nonce, 'session-a'],
    ['no token', '', nonce, 'session-a'],
    ['a token of the right length', Buffer.alloc(48).toString('base64'), nonce, 'session-a'],
  ])('refuses %s', (_what, given, cookie, session) => {
    expect(csrf.check(given, cookie, session)).toBe(false)
  })

  it('knows the cookies that it gave out, and those of no other key', () => {
    const other = new Csrf(Buffer.from('another secret'))
    expect(csrf.isNonce(nonce)).toBe(true)
    expect(csrf.isNonce(other.newNonce())).toBe(false)
    expect(csrf.isVisitor(csrf.newVisitor())).toBe(true)
    expect(csrf.isVisitor(other.newVisitor())).toBe(false)
    for (const made of [undefined, '', '.', 'a.b', 'v.a.b', nonce.slice(0, -1)]) {
      expect(csrf.isNonce(made)).toBe(false)
      expect(csrf.isVisitor(made ?? '')).toBe(false)
    }
    expect(csrf.isVisitor(nonce)).toBe(false)
  })
})
