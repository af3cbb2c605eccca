import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import {
  algorithmOf,
  canonicalPath,
  createDigestHasher,
  digestOf,
  encodedOf,
  formatArtifactName,
  formatReference,
  formatRegistryPath,
  isSupportedDigest,
  parseArtifactName,
  parseDigest,
  parseProjectName,
  parseQuery,
  parseReference,
  parseRegistryPath,
  parseRepositoryName,
  parseTag,
  problemOfPath,
  referrersTag,
  refusals,
  splitProject,
  type RegistryPath,
} from './index.ts'

const fixtures = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../../../proto/fixtures/${name}.json`, import.meta.url), 'utf8'))

/** Repeatable randomness, so that a failure can be run again (mulberry32). */
function randomness(seed: number) {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return { below, pick: <T>(from: readonly T[]): T => from[below(from.length)]! }
}

describe('digests', () => {
  const { valid, invalid } = fixtures('digests')
  it.each<{ text: string; algorithm: string; supported: boolean }>(valid)('$text', ({ text, algorithm, supported }) => {
    const digest = parseDigest(text)!
    expect([algorithmOf(digest), `${algorithm}:${encodedOf(digest)}`]).toEqual([algorithm, text])
    expect(isSupportedDigest(digest)).toBe(supported)
  })
  it.each<string>(invalid)('%j is none', (text) => expect(parseDigest(text)).toBeNull())

  it('name content', () => {
    const hasher = createDigestHasher('sha256')
    hasher.update(Buffer.from('te'))
    hasher.update(Buffer.from('st'))
    expect(hasher.digest()).toBe('sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08')
    expect(digestOf('test')).toBe('sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08')
    expect(parseDigest(digestOf(Buffer.alloc(0), 'sha512'))).not.toBeNull()
  })
})

describe('names', () => {
  const repositories = fixtures('repository-names')
  it.each<{ text: string; project: string; path: string }>(repositories.valid)('$text', ({ text, project, path }) => {
    expect(splitProject(parseRepositoryName(text)!)).toEqual({ project, path })
  })
  it.each<string>(repositories.withoutProject)('%s names a repository but no project', (text) => {
    expect(splitProject(parseRepositoryName(text)!)).toBeNull()
  })
  it.each<string>(repositories.invalid)('%j is no repository', (text) => expect(parseRepositoryName(text)).toBeNull())

  for (const [kind, parse] of [
    ['tags', parseTag],
    ['project-names', parseProjectName],
  ] as const) {
    const { valid, invalid } = fixtures(kind)
    it.each<string>(valid)(`${kind}: %s`, (text) => expect(parse(text)).toBe(text))
    it.each<string>(invalid)(`${kind}: not %j`, (text) => expect(parse(text)).toBeNull())
  }

  it('take linear time for any text', () => {
    const before = process.cpuUsage()
    for (const unit of ['a', 'a-', '-', 'a_', 'a.', 'a/', '_']) {
      const long = unit.repeat(200_000)
      for (const parse of [parseRepositoryName, parseTag, parseProjectName, parseDigest, parseRegistryPath])
        parse(`${long}!`)
      for (const parse of [parseRepositoryName, parseProjectName]) parse(`${long.slice(0, 254)}!`)
    }
    expect(process.cpuUsage(before).user).toBeLessThan(500_000)
  })
})

describe('references', () => {
  const { valid, invalid, artifacts } = fixtures('references')
  it.each<{ text: string; tag?: string; digest?: string }>(valid)('$text', ({ text, ...is }) => {
    const reference = parseReference(text)!
    expect(reference).toEqual(is)
    expect(formatReference(reference)).toBe(text)
  })
  it.each<string>(invalid)('%j is none', (text) => expect(parseReference(text)).toBeNull())

  it.each<{ text: string; repository: string; reference: string }>(artifacts.valid)('$text', (expected) => {
    const name = parseArtifactName(expected.text)!
    expect(name).toEqual({ repository: expected.repository, reference: parseReference(expected.reference) })
    expect(parseArtifactName(formatArtifactName(name))).toEqual(name)
  })
  it.each<string>(artifacts.invalid)('%j names no artifact', (text) => expect(parseArtifactName(text)).toBeNull())

  // The specification's own examples.
  it.each([
    [`sha256:${'a'.repeat(64)}`, `sha256-${'a'.repeat(64)}`],
    [`sha512:${'a'.repeat(128)}`, `sha512-${'a'.repeat(64)}`],
    [
      'test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:' +
        'alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation',
      'test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot',
    ],
  ])('%s has its referrers under %s', (digest, tag) => expect(referrersTag(parseDigest(digest)!)).toBe(tag))
})

describe('canonicalPath', () => {
  const { accepted, merged, refused } = fixtures('request-targets')
  it.each<{ target: string; path: string; query: string }>(accepted)('reads $target', ({ target, path, query }) => {
    expect(canonicalPath(target)).toEqual({ path, query })
    expect(canonicalPath(target, { repeatedSlashes: 'merge' })).toEqual({ path, query })
  })
  it.each<{ target: string; path: string }>(merged)(
    'merges the slashes of $target only on demand',
    ({ target, path }) => {
      expect(canonicalPath(target, { repeatedSlashes: 'merge' })).toEqual({ path, query: '' })
      expect(canonicalPath(target)).toEqual({ refused: 'repeated-slash' })
    },
  )
  it.each<{ target: string; reason: string }>(refused)('refuses $target: $reason', ({ target, reason }) => {
    expect(canonicalPath(target)).toEqual({ refused: reason })
    expect(Object.keys(refusals)).toContain(reason)
  })
  it('looks for dot segments after merging', () => {
    for (const target of ['/a//../b', '/a//%2e%2e', '//..//']) {
      expect(canonicalPath(target, { repeatedSlashes: 'merge' })).toEqual({ refused: 'dot-segment' })
    }
  })
  it('accepts nothing with an encoded slash, a dot segment, a backslash or a control character, whatever is around it', () => {
    const { below, pick } = randomness(7)
    const harmless = ['a', 'v2', '/', '/', 'manifests', 'blobs', '%41', '%25', '.', '-', 'caf%C3%A9']
    const bad = [
      '%2f',
      '%2F',
      '/../',
      '/./',
      '/%2e%2e/',
      '/.%2e/',
      '\\',
      '%5c',
      '%00',
      '%0A',
      '\r',
      '%7F',
      '//',
      '%',
      '%zz',
      '\u00e9',
    ]
    for (let i = 0; i < 5000; i++) {
      const parts = Array.from({ length: 1 + below(8) }, () => pick(harmless))
      parts.splice(below(parts.length + 1), 0, pick(bad))
      const target = `/${parts.join('')}`
      // `%` before two hexadecimal digits of the next part is an ordinary escape.
      if (
        /%[0-9a-f]{2}/i.test(target) &&
        !/%(2f|2e|5c|00|0a|7f)/i.test(target) &&
        !/[\\\r\u00e9]|\/\/|\/\.\.?\/|%zz/.test(target)
      )
        continue
      expect([target, canonicalPath(target)]).toEqual([target, { refused: expect.any(String) }])
    }
  })
})

describe('parseQuery', () => {
  it('keeps order and repetition', () => {
    expect([...(parseQuery('scope=a&scope=b%20c&n=') as URLSearchParams)]).toEqual([
      ['scope', 'a'],
      ['scope', 'b c'],
      ['n', ''],
    ])
  })
  it.each([
    ['a=%zz', 'malformed-escape'],
    ['a=%ff', 'malformed-escape'],
    ['a=1;b=2', 'semicolon-in-query'],
    ['a=x%00', 'control-character'],
  ])('refuses %s', (query, reason) => expect(parseQuery(query)).toEqual({ refused: reason }))
})

describe('parseRegistryPath', () => {
  const { valid, invalid, unknown } = fixtures('registry-paths')
  it.each<{ path: string; is: RegistryPath }>(valid)('$path', ({ path, is }) =>
    expect(parseRegistryPath(path)).toEqual(is),
  )
  it.each<{ path: string; wrong: string; code: string }>(invalid)('$path: wrong $wrong', ({ path, wrong, code }) => {
    const parsed = parseRegistryPath(path)
    if (parsed?.kind !== 'invalid') throw new Error('it was accepted')
    expect(parsed.wrong).toBe(wrong)
    expect(problemOfPath(parsed, 'GET').kind.oci).toBe(code)
  })
  it.each<string>(unknown)('%j is no path of the registry', (path) => expect(parseRegistryPath(path)).toBeNull())

  it('tells a PUT what is wrong with its reference', () => {
    const codes = ['-bad', 'sha256:zz'].map((reference) => {
      const parsed = parseRegistryPath(`/v2/a/b/manifests/${reference}`)
      if (parsed?.kind !== 'invalid') throw new Error('it was accepted')
      return problemOfPath(parsed, 'PUT').kind.oci
    })
    expect(codes).toEqual(['MANIFEST_INVALID', 'DIGEST_INVALID'])
  })

  it('reads back what was formatted, for names made of the words of the API', () => {
    const { below, pick } = randomness(1)
    const words = [
      'manifests',
      'blobs',
      'uploads',
      'tags',
      'list',
      'referrers',
      'v2',
      'ext',
      'discover',
      'a',
      'a.b',
      'a__b',
      '0-0',
    ]
    const digest = digestOf('x')
    const some = (name: string): RegistryPath[] => {
      const repository = parseRepositoryName(name)!
      return [
        { kind: 'tags', name: repository },
        { kind: 'manifest', name: repository, reference: parseReference(pick([...words, digest]))! },
        { kind: 'blob', name: repository, digest },
        { kind: 'uploads', name: repository },
        { kind: 'upload', name: repository, upload: pick(words.filter((word) => !word.includes('.'))) as never },
        { kind: 'referrers', name: repository, digest },
        { kind: 'discover', name: repository },
      ]
    }
    for (let i = 0; i < 2000; i++) {
      const name = Array.from({ length: 1 + below(6) }, () => pick(words)).join('/')
      for (const path of some(name)) {
        const target = canonicalPath(formatRegistryPath(path))
        expect('path' in target && parseRegistryPath(target.path)).toEqual(path)
      }
    }
  })
})
