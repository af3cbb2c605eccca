import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import {
  digestOf,
  maxDescriptors,
  maxManifestBytes,
  mediaTypes,
  parseManifest,
  parseStrictJson,
  requiredBlobs,
} from './index.ts'

interface Case {
  name: string
  contentType: string | null
  body?: unknown
  text?: string
}
interface Valid extends Case {
  kind: string
  artifactType: string | null
  edges: [string, string][]
  required?: string[]
}
const fixtures: { valid: Valid[]; invalid: (Case & { reason: string })[] } = JSON.parse(
  readFileSync(new URL('../../../../proto/fixtures/manifests.json', import.meta.url), 'utf8'),
)
const bytesOf = ({ body, text }: Case) => Buffer.from(text ?? JSON.stringify(body))

/** The reason for which a manifest is refused. */
function refusal(contentType: string | null, bytes: Uint8Array): string {
  try {
    parseManifest(contentType ?? undefined, bytes)
  } catch (error) {
    if (problems.manifestInvalid.is(error)) return String(error.facts.reason)
    throw error
  }
  throw new Error('it was accepted')
}

describe('parseManifest', () => {
  it.each(fixtures.valid)('reads: $name', (given) => {
    const bytes = bytesOf(given)
    const manifest = parseManifest(given.contentType!, bytes)
    expect(manifest.kind).toBe(given.kind)
    expect(manifest.artifactType).toBe(given.artifactType)
    expect(manifest.edges.map(({ kind, digest }) => [kind, digest])).toEqual(given.edges)
    expect([manifest.digest, manifest.sizeBytes]).toEqual([digestOf(bytes), bytes.length])
    if (given.required) expect(requiredBlobs(manifest)).toEqual(given.required)
  })

  it.each(fixtures.invalid)('refuses: $name', (given) => {
    expect(refusal(given.contentType, bytesOf(given))).toContain(given.reason)
  })

  it('keeps what descriptors say', () => {
    const index = fixtures.valid.find(({ name }) => name === 'index')!
    const [first, second] = parseManifest(index.contentType!, bytesOf(index)).edges
    expect(first).toEqual({
      kind: 'child',
      mediaType: mediaTypes.ociManifest,
      digest: `sha256:${'1'.repeat(64)}`,
      sizeBytes: 7,
      platform: { architecture: 'arm64', os: 'linux', variant: 'v8' },
    })
    expect(second?.annotations?.['vnd.docker.reference.type']).toBe('attestation-manifest')
  })

  it('names the manifest by the algorithm that is asked for', () => {
    const bytes = bytesOf(fixtures.valid[0]!)
    expect(parseManifest(mediaTypes.ociManifest, bytes, 'sha512').digest).toBe(digestOf(bytes, 'sha512'))
  })

  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: `sha256:${'1'.repeat(64)}`, size: 1 }
  const withLayers = (count: number) =>
    Buffer.from(JSON.stringify({ schemaVersion: 2, config: layer, layers: Array.from({ length: count }, () => layer) }))

  it('says where the first fault is', () => {
    const at = (text: string) => {
      try {
        parseManifest(mediaTypes.ociManifest, Buffer.from(text))
      } catch (error) {
        return (error as { entries: { facts?: unknown }[] }).entries[0]!.facts
      }
      return null
    }
    const config = JSON.stringify(layer)
    const start = `{"schemaVersion":2,"config":${config},"layers":[${config}`
    expect(at(`${start},{"mediaType":"a/b","size":1,"digest":"sha256:zz"}]}`)).toMatchObject({
      path: 'layers[1].digest',
    })
    expect(at(`${start},{"mediaType":"a/b","size":-1,"digest":"${layer.digest}"}]}`)).toMatchObject({
      path: 'layers[1].size',
    })
    expect(at(`${start}],"layers":[]}`)).toMatchObject({ path: 'layers' })
    expect(at(`${start},{"size":1 2`)).toMatchObject({ path: 'layers[1].size' })
    expect(at('{"schemaVersion":1}')).toEqual({ reason: expect.stringContaining('schema 1') })
  })

  it('counts descriptors', () => {
    expect(parseManifest(mediaTypes.ociManifest, withLayers(maxDescriptors - 1)).edges).toHaveLength(maxDescriptors)
    expect(refusal(mediaTypes.ociManifest, withLayers(maxDescriptors))).toContain('descriptors')
  })

  it('refuses more than 4 MiB by 413 and accepts 4 MiB', () => {
    const whole = withLayers(1)
    const padded = Buffer.concat([whole, Buffer.alloc(maxManifestBytes - whole.length, ' ')])
    expect(parseManifest(mediaTypes.ociManifest, padded).sizeBytes).toBe(maxManifestBytes)
    expect(() => parseManifest(mediaTypes.ociManifest, Buffer.concat([padded, Buffer.from(' ')]))).toThrow(
      expect.objectContaining({ status: 413 }),
    )
  })

  it('refuses invalid UTF-8', () => {
    expect(refusal(mediaTypes.ociManifest, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]))).toContain('UTF-8')
  })

  it.each(['[', '{"a":', '"\\', '\\', '"a":{', '{"a":1,'])(
    'answers a full body of %j within a second of CPU',
    (unit) => {
      const before = process.cpuUsage()
      refusal(mediaTypes.ociManifest, Buffer.from(unit.repeat(maxManifestBytes / unit.length)))
      expect(process.cpuUsage(before).user).toBeLessThan(1_000_000)
    },
  )

  it('does not let a key reach the prototype', () => {
    const text = `{"schemaVersion":2,"manifests":[],"annotations":{"__proto__":"x"},"__proto__":{"polluted":"x"}}`
    expect(Object.keys(parseManifest(mediaTypes.ociIndex, Buffer.from(text)).annotations)).toEqual(['__proto__'])
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false)
  })
})

describe('parseStrictJson', () => {
  it.each(['{"a":"\\\\u0000"}', '{"a":"}{][:\\"","b":["a","a"],"c":{"a":1}}', '"a"', '[[1]]', ' null '])(
    'reads %s',
    (text) => expect(parseStrictJson(text, { maxDepth: 2 })).toEqual({ value: JSON.parse(text) }),
  )
  it.each([
    ['{"a":"\\\\\\u0000"}', 'a'],
    ['{"\\u0000":1}', '["\\u0000"]'],
    ['{"a":1,"a" \n:2}', 'a'],
    ['[[[1]]]', '[0][0]'],
    ['{"a":', 'a'],
    ['"a', ''],
    ['"\\u00zz"', ''],
    ['{"\\x":1}', '["\\"\\\\x\\""]'],
    ['', ''],
    ['{"layers":[{},{"digest":"x","x y":1 2}]}', 'layers[1]["x y"]'],
    ['{"layers":[1,2],"b":{"c":1,}}', 'b.c'],
  ])('refuses %s and says where', (text, path) =>
    expect(parseStrictJson(text, { maxDepth: 2 + (text.includes('layers') ? 2 : 0) })).toEqual({
      wrong: expect.any(String),
      path,
    }),
  )
})
