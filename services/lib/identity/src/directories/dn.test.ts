import { describe, expect, it } from '@jest/globals'
import { canonicalDn, escapeDnValue, isDn } from './dn.ts'

describe('canonicalDn', () => {
  it.each([
    ['CN=Ann, OU=People,DC=Example,DC=Com', 'cn=ann,ou=people,dc=example,dc=com'],
    ['cn=a;dc=b', 'cn=a,dc=b'],
    [String.raw`cn=Doe\, John,dc=x`, String.raw`cn=doe\, john,dc=x`],
    [String.raw`cn=Doe\2C John,dc=x`, String.raw`cn=doe\, john,dc=x`],
    [String.raw`cn=\C3\84rzte,dc=x`, 'cn=ärzte,dc=x'],
    ['sn=b+cn=a,dc=x', 'cn=a+sn=b,dc=x'],
    [String.raw`cn=a\ ,dc=x`, String.raw`cn=a\ ,dc=x`],
    [' 1.2.840.1 = a , dc = x ', '1.2.840.1=a,dc=x'],
    ['cn=a b,dc=x', 'cn=a b,dc=x'],
  ])('reads %s', (given, expected) => {
    expect(canonicalDn(given)).toBe(expected)
    expect(canonicalDn(canonicalDn(given))).toBe(expected)
  })

  it.each([
    '',
    'ann',
    'cn=',
    '=x',
    'cn=a,',
    'cn=a,,dc=x',
    'cn=a\\',
    'cn="a"',
    'cn=a\0',
    'c n=x',
    `cn=${'x'.repeat(600)}`,
  ])('refuses %j', (given) => {
    expect(isDn(given)).toBe(false)
    expect(() => canonicalDn(given)).toThrow('invalid DN')
  })
})

describe('escapeDnValue', () => {
  it.each(['a,dc=evil', '*)(uid=*', '#x', ' a ', 'a+b', 'a\0b', 'a\\', '"', '<>;='])(
    'A65: keeps %j one value',
    (value) => {
      expect(
        canonicalDn(`cn=${escapeDnValue(value)},dc=x`)
          .replaceAll(/\\./g, '')
          .split(','),
      ).toHaveLength(2)
    },
  )
})
