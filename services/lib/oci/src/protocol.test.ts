import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import {
  formatChallenge,
  formatContentRange,
  formatLink,
  formatScope,
  formatUploadRange,
  isAcceptable,
  maxRanges,
  mediaTypes,
  parseAccept,
  parseRange,
  parseScopes,
  parseUploadRange,
  versionKey,
} from './index.ts'

const fixtures = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../../proto/fixtures/${name}.json`, import.meta.url), 'utf8'))

describe('parseRange', () => {
  it.each<[string | undefined, number, [number, number][] | 'whole' | null]>([
    ['bytes=0-9', 100, [[0, 9]]],
    ['bytes=0-', 100, [[0, 99]]],
    ['bytes=90-200', 100, [[90, 99]]],
    ['bytes=-10', 100, [[90, 99]]],
    ['bytes=-200', 100, [[0, 99]]],
    ['BYTES=5-5', 100, [[5, 5]]],
    [
      'bytes=50-59, 0-9 ,,20-29',
      100,
      [
        [50, 59],
        [0, 9],
        [20, 29],
      ],
    ],
    ['bytes=0-9,200-300', 100, [[0, 9]]],
    ['bytes=0-99999999999999999999', 100, [[0, 99]]],
    ['bytes=100-', 100, null],
    ['bytes=-0', 100, null],
    ['bytes=0-', 0, null],
    ['bytes=-5', 0, null],
    ['bytes=99999999999999999999-', 100, null],
    ['bytes=0-,0-,0-', 100, 'whole'],
    [`bytes=${'0-0,'.repeat(maxRanges + 1)}`, 1e6, 'whole'],
    [undefined, 100, 'whole'],
    ['', 100, 'whole'],
    ['bytes=', 100, 'whole'],
    ['bytes=-', 100, 'whole'],
    ['bytes=9-0', 100, null],
    ['bytes=9-0,5-6', 100, [[5, 6]]],
    ['bytes=a-b', 100, 'whole'],
    ['bytes=0-9,x', 100, 'whole'],
    ['bytes=0-9-10', 100, 'whole'],
    ['items=0-9', 100, 'whole'],
  ])('%s of %d bytes', (header, size, expected) => {
    const ranges = Array.isArray(expected) ? expected.map(([first, last]) => ({ first, last })) : expected
    expect(parseRange(header, size)).toEqual(ranges)
  })

  it('never leaves the blob, whatever is asked', () => {
    for (let i = 0; i < 5000; i++) {
      const [a, b, size] = [i % 13, (i * 7) % 17, i % 11]
      const ranges = parseRange(`bytes=${['', a][i % 2]}-${['', b, b][i % 3]},${b}-`, size)
      if (ranges === null || ranges === 'whole') continue
      expect(ranges.length).toBeGreaterThan(0)
      for (const { first, last } of ranges) expect(0 <= first && first <= last && last < size).toBe(true)
    }
  })

  it('has its answers', () => {
    expect(formatContentRange({ first: 0, last: 9 }, 100)).toBe('bytes 0-9/100')
    expect(formatContentRange(null, 100)).toBe('bytes */100')
  })
})

describe('upload ranges', () => {
  it.each([
    ['0-1023', 0, 1023],
    ['bytes 5-5/6', 5, 5],
    ['bytes=0-1/*', 0, 1],
    ['bytes 0-1', 0, 1],
    [' 7-9 ', 7, 9],
  ])('reads %j', (header, first, last) => expect(parseUploadRange(header)).toEqual({ first, last }))
  it.each([
    '',
    '0-',
    '-5',
    '5-4',
    'bytes 0-1/2/3',
    'bytes 0-1/1',
    'a-b',
    '-1-5',
    '0-9007199254740993',
    '1.5-2',
    'items 0-1',
    '0 - 1',
  ])('refuses %j', (header) => expect(parseUploadRange(header)).toBeNull())
  it.each([
    [0, '0-0'],
    [1, '0-0'],
    [1024, '0-1023'],
  ])('tells of %d bytes as %s', (received, text) => expect(formatUploadRange(received)).toBe(text))
})

describe('parseAccept', () => {
  it('orders by quality and keeps the order of equals', () => {
    const accepted = parseAccept(['a/b;q=0.5, c/d', 'E/F; charset=x; q=1.0,*/*;q=0.1'])
    expect(accepted.map(({ mediaType, quality }) => [mediaType, quality])).toEqual([
      ['c/d', 1],
      ['e/f', 1],
      ['a/b', 0.5],
      ['*/*', 0.1],
    ])
  })
  it('leaves out what is no media range and ignores what is no weight', () => {
    expect(parseAccept('json, /, a/, a/b;q=high, , x y/z')).toEqual([{ mediaType: 'a/b', quality: 1 }])
  })
  it.each([
    [undefined, mediaTypes.ociManifest, true],
    ['', mediaTypes.ociManifest, true],
    ['*/*', mediaTypes.ociManifest, true],
    ['application/*;q=0.2', mediaTypes.ociManifest, true],
    [mediaTypes.ociManifest.toUpperCase(), mediaTypes.ociManifest, true],
    [`${mediaTypes.dockerManifest}, ${mediaTypes.dockerSchema1Signed}`, mediaTypes.ociManifest, false],
    [`*/*, ${mediaTypes.ociManifest};q=0`, mediaTypes.ociManifest, false],
    ['*/*;q=0.0', mediaTypes.ociManifest, false],
    [`application/*;q=0, ${mediaTypes.ociManifest};q=0.001`, mediaTypes.ociManifest, true],
  ])('%s accepts %s: %s', (header, type, expected) => expect(isAcceptable(parseAccept(header), type)).toBe(expected))
})

describe('parseScopes', () => {
  it.each<{ name: string; given: string[]; scopes: { type: string; name: string; actions: string[] }[] }>(
    fixtures('scopes').valid,
  )('$name', ({ given, scopes }) => expect(parseScopes(given)).toEqual(scopes))
  it.each<string>(fixtures('scopes').dropped)('leaves out %j', (given) => expect(parseScopes(given)).toEqual([]))
  it('refuses more than 100, in one parameter or in many', () => {
    const scope = 'repository:a/b:pull'
    expect(parseScopes(Array(100).fill(scope))).toHaveLength(1)
    for (const many of [Array<string>(101).fill(scope), Array(101).fill(scope).join(' ')]) {
      expect(() => parseScopes(many)).toThrow(expect.objectContaining({ status: 400 }))
    }
  })
  it('reads what is not given as nothing', () => expect(parseScopes(undefined)).toEqual([]))
  it('formats as it reads', () => {
    const text = 'repository:host:5000/a/b:pull,push'
    expect(parseScopes(text).map(formatScope)).toEqual([text])
  })
})

describe('formatChallenge', () => {
  const base = { realm: 'https://registry.test/service/token', service: 'harbor-registry' }
  it('quotes each value and joins scopes by blanks', () => {
    expect(formatChallenge(base)).toBe('Bearer realm="https://registry.test/service/token",service="harbor-registry"')
    const scopes = parseScopes('repository:a/b:pull,push repository:c/d:pull')
    expect(formatChallenge({ ...base, scopes, error: 'insufficient_scope' })).toBe(
      'Bearer realm="https://registry.test/service/token",service="harbor-registry",' +
        'scope="repository:a/b:pull,push repository:c/d:pull",error="insufficient_scope"',
    )
  })
  it('lets no value end its quotes or its line', () => {
    const header = formatChallenge({ ...base, service: 'a"b\\c\r\nX: y\u20ac' })
    expect(header).toContain(String.raw`service="a\"b\\c??X: y?"`)
  })
})

describe('formatLink', () => {
  it('keeps the path and escapes the query', () => {
    expect(formatLink('/v2/a/b/tags/list', { last: 'v1', n: 10 })).toBe('</v2/a/b/tags/list?last=v1&n=10>; rel="next"')
    expect(formatLink('/v2/a/b/tags/list', { last: 'a>; rel="x"\r\nX: y&z' })).toBe(
      '</v2/a/b/tags/list?last=a%3E%3B%20rel%3D%22x%22%0D%0AX%3A%20y%26z>; rel="next"',
    )
    expect(formatLink('/a', { last: '\ud800' })).toBe('</a?last=%EF%BF%BD>; rel="next"')
    expect(formatLink('/a>\r\n \u{1f600}', { n: 1 })).toBe('</a%3E%0D%0A%20%F0%9F%98%80?n=1>; rel="next"')
  })
})

describe('versionKey', () => {
  const compareTags = (a: string, b: string) => {
    const [left, right] = [versionKey(a), versionKey(b)]
    return left < right ? -1 : left > right ? 1 : 0
  }
  const ordered = [
    ['1.9', '1.10'],
    ['v1.2.3', 'v1.2.10'],
    ['2.0.0-rc.1', '2.0.0-rc.2', '2.0.0-rc.10', '2.0.0'],
    ['1.0.0-1', '1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-beta'],
    ['1', '1.1', '2'],
    ['1.2.3', '1.2.3_build.5', '1.2.4'],
    ['latest', '1.0'],
    ['build-9', 'build-10'],
    ['a', 'a1', 'a1b', 'b'],
    ['20240101123456789012', '20240101123456789013'],
    ['1.2.3.4', '1.2.3.5'],
    ['01', '1'],
    ['release-1.9-x', 'release-1.10-x'],
  ]
  it.each(ordered.map((tags) => [tags.join(' < '), tags] as const))('%s', (_, tags) => {
    for (const [i, a] of tags.entries()) {
      for (const [j, b] of tags.entries())
        expect([a, b, Math.sign(compareTags(a, b))]).toEqual([a, b, Math.sign(i - j)])
    }
  })

  it('is a total order', () => {
    const tags = [
      ...new Set(ordered.flat()),
      'v1',
      '1.0.0',
      'v1.0.0',
      '1.0',
      '1-0',
      '1-',
      '_',
      'A',
      '1.0.0-00',
      '1.0.0-0',
    ]
    for (const a of tags) {
      for (const b of tags) {
        expect(compareTags(a, b) === 0).toBe(a === b)
        expect(Math.sign(compareTags(a, b)) + Math.sign(compareTags(b, a))).toBe(0)
        for (const c of tags) {
          if (compareTags(a, b) < 0 && compareTags(b, c) < 0)
            expect([a, b, c, compareTags(a, c) < 0]).toEqual([a, b, c, true])
        }
      }
    }
  })
})
