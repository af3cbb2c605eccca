import { Readable } from 'node:stream'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import { digestOf, mediaTypes, parseManifest, type Annotations } from '@haven/oci'
import { artifactTypeWord } from '../artifact-type.ts'
import { readAll } from './bounded.ts'
import { fileTreeOf } from './file-tree.ts'
import { processorOf, processors } from './index.ts'
import type { Addition, Content, Described, JsonObject } from './processor.ts'
import { readFromTar } from './tar.ts'

const OCI = 'application/vnd.oci.image.'
const EMPTY = mediaTypes.ociEmpty
const digest = digestOf(Buffer.from('{}'))

type Given = {
  config?: string
  artifactType?: string
  layers?: { mediaType: string; annotations?: Annotations }[]
  annotations?: Annotations
  index?: true
  says?: JsonObject
}

/** An artifact as its manifest makes it known, written to the specification of its kind. */
function artifactOf({ config, artifactType, layers = [], annotations = {}, index, says = {} }: Given): Described {
  const mediaType = index ? mediaTypes.ociIndex : mediaTypes.ociManifest
  const blob = (each: object) => ({ digest, size: 2, ...each })
  const body = index ? { manifests: [] } : { config: blob({ mediaType: config ?? EMPTY }), layers: layers.map(blob) }
  const manifest = parseManifest(
    mediaType,
    Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, artifactType, annotations, ...body })),
  )
  return {
    kind: index ? 'index' : 'image',
    type: artifactTypeWord(manifest),
    artifactType: manifest.artifactType,
    configMediaType: manifest.config?.mediaType ?? null,
    annotations,
    layers: manifest.layers.map((layer) => ({ mediaType: layer.mediaType, annotations: layer.annotations ?? {} })),
    config: says,
  }
}

type Expected = { format: string; word: string; icon?: string; attributes?: JsonObject; additions?: string[] }

const IMAGE = { architecture: 'arm64', os: 'linux', config: { Labels: { a: 'b' } } }
const AS_IMAGE = { architecture: 'arm64', os: 'linux', author: '', created: null, config: { Labels: { a: 'b' } } }
const title = (mediaType: string, name: string) => ({
  mediaType,
  annotations: { 'org.opencontainers.image.title': name },
})

const known: [what: string, Given, Expected][] = [
  [
    'an image of OCI',
    { config: mediaTypes.ociConfig, layers: [{ mediaType: `${OCI}layer.v1.tar+gzip` }], says: IMAGE },
    { format: 'image', word: 'IMAGE', icon: 'image', attributes: AS_IMAGE, additions: ['build_history'] },
  ],
  [
    'an image of Docker',
    { config: mediaTypes.dockerConfig, says: IMAGE },
    { format: 'image', word: 'IMAGE', icon: 'image', attributes: AS_IMAGE, additions: ['build_history'] },
  ],
  ['an index', { index: true }, { format: 'index', word: 'IMAGE', icon: 'image' }],
  [
    'a chart of Helm',
    { config: 'application/vnd.cncf.helm.config.v1+json', says: { name: 'c', version: '1' } },
    {
      format: 'helm-chart',
      word: 'CHART',
      icon: 'chart',
      attributes: { name: 'c', version: '1' },
      additions: ['values.yaml', 'readme.md', 'dependencies', 'provenance'],
    },
  ],
  [
    'a bundle of CNAB',
    {
      index: true,
      annotations: { 'org.opencontainers.artifactType': 'application/vnd.cnab.manifest.v1' },
      says: { name: 'b' },
    },
    { format: 'cnab', word: 'CNAB', icon: 'cnab', attributes: { name: 'b' } },
  ],
  [
    'policies of Open Policy Agent',
    {
      config: 'application/vnd.cncf.openpolicyagent.config.v1+json',
      layers: [title('application/vnd.cncf.openpolicyagent.policy.layer.v1+rego', 'deny.rego')],
    },
    { format: 'opa-bundle', word: 'OPENPOLICYAGENT' },
  ],
  [
    'a SIF of Singularity',
    {
      config: 'application/vnd.sylabs.sif.config.v1+json',
      layers: [title('application/vnd.sylabs.sif.layer.v1.sif', 'a.sif')],
    },
    { format: 'sif', word: 'SIF' },
  ],
  [
    'a WebAssembly module of wasm-to-oci',
    {
      config: 'application/vnd.wasm.config.v1+json',
      layers: [title('application/vnd.wasm.content.layer.v1+wasm', 'm.wasm')],
    },
    {
      format: 'wasm',
      word: 'WASM',
      icon: 'wasm',
      attributes: {
        'manifest.config.mediaType': 'application/vnd.wasm.config.v1+json',
        'manifest.layers.mediaType': 'application/vnd.wasm.content.layer.v1+wasm',
        'org.opencontainers.image.title': 'm.wasm',
      },
      additions: ['build_history'],
    },
  ],
  [
    'an image whose annotations say that it is WebAssembly',
    { config: mediaTypes.ociConfig, annotations: { 'module.wasm.image/variant': 'compat' }, says: IMAGE },
    {
      format: 'wasm',
      word: 'WASM',
      icon: 'wasm',
      attributes: { ...AS_IMAGE, 'manifest.config.mediaType': mediaTypes.ociConfig },
      additions: ['build_history'],
    },
  ],
  [
    'an image of Nydus',
    { config: mediaTypes.ociConfig, layers: [{ mediaType: `${OCI}layer.nydus.blob.v1` }], says: IMAGE },
    { format: 'nydus', word: 'IMAGE', icon: 'image', attributes: AS_IMAGE, additions: ['build_history'] },
  ],
  [
    'a Flatpak by its labels',
    {
      config: mediaTypes.ociConfig,
      says: { config: { Labels: { 'org.flatpak.ref': 'app/org.example.App/x86_64/stable' } } },
    },
    {
      format: 'flatpak',
      word: 'IMAGE',
      icon: 'image',
      attributes: {
        architecture: '',
        author: '',
        os: '',
        created: null,
        config: { Labels: { 'org.flatpak.ref': 'app/org.example.App/x86_64/stable' } },
      },
      additions: ['build_history'],
    },
  ],
  [
    'a model of ModelPack',
    {
      artifactType: 'application/vnd.cncf.model.manifest.v1+json',
      config: 'application/vnd.cncf.model.config.v1+json',
      says: { descriptor: { name: 'm' } },
    },
    {
      format: 'model',
      word: 'CNAI',
      icon: 'cnai',
      attributes: { descriptor: { name: 'm' } },
      additions: ['readme.md', 'license', 'files'],
    },
  ],
  [
    'a ModelKit of KitOps',
    { config: 'application/vnd.kitops.modelkit.config.v1+json', says: { manifestVersion: '1.0.0' } },
    {
      format: 'modelkit',
      word: 'MODELKIT',
      attributes: { manifestVersion: '1.0.0' },
      additions: ['readme.md', 'license'],
    },
  ],
  [
    'a signature that Cosign keeps under a tag',
    { config: mediaTypes.ociConfig, layers: [{ mediaType: 'application/vnd.dev.cosign.simplesigning.v1+json' }] },
    {
      format: 'cosign-signature',
      word: 'IMAGE',
      attributes: { architecture: '', author: '', config: {}, created: null, os: '' },
      additions: ['signature'],
    },
  ],
  [
    'a signature of Notation',
    {
      artifactType: 'application/vnd.cncf.notary.signature',
      layers: [{ mediaType: 'application/jose+json' }],
      annotations: { 'io.cncf.notary.x509chain.thumbprint#S256': '["ab"]' },
    },
    {
      format: 'notation-signature',
      word: 'UNKNOWN',
      attributes: { thumbprints: '["ab"]' },
      additions: ['signature'],
    },
  ],
  [
    'a bundle of Sigstore',
    {
      artifactType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
      layers: [{ mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json' }],
      annotations: { 'dev.sigstore.bundle.predicateType': 'https://slsa.dev/provenance/v1' },
    },
    {
      format: 'sigstore-bundle',
      word: 'UNKNOWN',
      attributes: { predicateType: 'https://slsa.dev/provenance/v1' },
      additions: ['statement'],
    },
  ],
  [
    'statements of in-toto, as BuildKit keeps them',
    {
      config: mediaTypes.ociConfig,
      layers: [
        {
          mediaType: 'application/vnd.in-toto+json',
          annotations: { 'in-toto.io/predicate-type': 'https://spdx.dev/Document' },
        },
      ],
      says: IMAGE,
    },
    {
      format: 'in-toto',
      word: 'IMAGE',
      attributes: { ...AS_IMAGE, predicateTypes: ['https://spdx.dev/Document'] },
      additions: ['statement'],
    },
  ],
  [
    'a bill of materials of Harbor',
    { config: 'application/vnd.goharbor.harbor.sbom.v1', layers: [{ mediaType: 'application/spdx+json' }] },
    { format: 'harbor-sbom', word: 'SBOM', icon: 'sbom', additions: ['sbom'] },
  ],
  [
    'a bill of materials in SPDX',
    { artifactType: 'application/spdx+json', layers: [{ mediaType: 'application/spdx+json' }] },
    { format: 'sbom', word: 'UNKNOWN', attributes: { standard: 'SPDX' }, additions: ['sbom'] },
  ],
  [
    'a bill of materials in CycloneDX',
    { artifactType: 'application/vnd.cyclonedx+json' },
    { format: 'sbom', word: 'UNKNOWN', attributes: { standard: 'CycloneDX' }, additions: ['sbom'] },
  ],
  [
    'a VEX in OpenVEX',
    { artifactType: 'application/vnd.openvex+json' },
    { format: 'vex', word: 'UNKNOWN', attributes: { standard: 'OpenVEX' }, additions: ['vex'] },
  ],
  [
    'a VEX in CSAF',
    { artifactType: 'application/csaf+json' },
    { format: 'vex', word: 'UNKNOWN', attributes: { standard: 'CSAF' }, additions: ['vex'] },
  ],
  [
    'the cache of BuildKit',
    { config: mediaTypes.buildkitCacheConfig, says: { layers: [{}, {}], records: [{}] } },
    { format: 'buildkit-cache', word: 'UNKNOWN', attributes: { layers: 2, records: 1 } },
  ],
  [
    'a kind that somebody made up, by its config',
    { config: 'application/vnd.example.thing.config.v1+json', says: { weight: 7 } },
    { format: 'unknown', word: 'THING', attributes: { weight: 7 } },
  ],
  ['files of an unknown kind', { artifactType: 'application/x.anything' }, { format: 'unknown', word: 'UNKNOWN' }],
]

describe('an artifact made to the specification of its kind', () => {
  it.each(known)(
    '%s is recognised',
    (_, given, { format, word, icon = 'unknown', attributes = {}, additions = [] }) => {
      const artifact = artifactOf(given)
      const processor = processorOf(artifact)
      expect({ word: artifact.type, format: processor.format, icon: processor.icon }).toEqual({ word, format, icon })
      expect(processor.attributes(artifact, new Set())).toEqual(attributes)
      expect(Object.keys(processor.additions)).toEqual(additions)
    },
  )

  it('is here of every kind that there is a processor for', () => {
    const told = new Set(known.map(([, , { format }]) => format))
    expect(processors.filter(({ format }) => !told.has(format))).toEqual([])
  })
})

const nothing: Content = { layers: [], config: async () => null, open: async () => null }

describe.each(processors.map((processor) => [processor.format, processor] as const))(
  'the processor of %s',
  (format, processor) => {
    const [, given] = known.find(([, , expected]) => expected.format === format)!
    const said = (config: JsonObject | null) => ({ ...artifactOf(given), config })

    it.each<[string, JsonObject | null]>([
      ['none', null],
      ['an empty one', {}],
      [
        'one of other types',
        { config: 1, architecture: {}, os: null, created: [], author: 7, history: 'x', layers: 3 },
      ],
      [
        'one that names what objects have',
        { constructor: 'x', toString: 1, config: { Labels: { hasOwnProperty: 1 } } },
      ],
      ['one that names a prototype', JSON.parse('{"__proto__":{"polluted":1},"config":{"__proto__":1}}') as JsonObject],
    ])('A74, A95: takes %s for a config', (_, config) => {
      expect(() => JSON.stringify(processor.attributes(said(config), new Set()))).not.toThrow()
      expect(({} as { polluted?: number }).polluted).toBeUndefined()
    })

    it('A95: has nothing to add where there is nothing to read', async () => {
      for (const name of Object.keys(processor.additions) as Addition[]) {
        const found = await processor.additions[name]!(nothing)
        expect([name, found?.body ?? 'null']).toEqual([name, name === 'files' ? '[]' : 'null'])
      }
    })

    it('A94: answers in a type that no browser runs, whatever the layers say they are', async () => {
      const types = [
        'text/html',
        'image/svg+xml',
        'application/xhtml+xml',
        ...artifactOf(given).layers.map((l) => l.mediaType),
      ]
      const layers = types.map((mediaType) => ({ digest, mediaType, sizeBytes: 2, annotations: {} }))
      const content: Content = { ...nothing, layers, open: async () => Readable.from([Buffer.from('<script>')]) }
      for (const name of Object.keys(processor.additions) as Addition[]) {
        const found = await processor.additions[name]!(content)
        expect([name, found?.contentType ?? '']).toEqual([
          name,
          expect.stringMatching(/^$|^(application\/json|text\/plain|text\/markdown); charset=utf-8$/),
        ])
      }
    })
  },
)

describe('attributes', () => {
  const image = (config: JsonObject) =>
    processorOf(artifactOf({ config: mediaTypes.ociConfig })).attributes(
      artifactOf({ config: mediaTypes.ociConfig, says: config }),
      new Set(),
    )

  it.each<[JsonObject, string]>([
    [{ author: 'a', config: { Labels: { maintainer: 'm' } } }, 'a'],
    [{ config: { Labels: { 'org.opencontainers.image.authors': 'o', maintainer: 'm' } } }, 'o'],
    [{ config: { Labels: { maintainer: 'm' } } }, 'm'],
    [{}, ''],
  ])('of %j say who made it', (config, author) => {
    expect(image(config)).toMatchObject({ author })
  })

  it('of an image tell how it runs, and nothing else of its config', () => {
    const config = { config: { User: 'u', Env: [], Volumes: { '/v': {} }, OnBuild: ['x'] }, rootfs: {}, os: 'linux' }
    expect(image(config)).toEqual({
      architecture: '',
      author: '',
      created: null,
      os: 'linux',
      config: { User: 'u', Volumes: { '/v': {} } },
    })
  })

  it('of an unknown type are its config, but for what is to be hidden', () => {
    const artifact = artifactOf({ artifactType: 'application/x.y', says: { a: 1, b: 2 } })
    expect(processorOf(artifact).attributes(artifact, new Set(['b']))).toEqual({ a: 1 })
  })
})

const entry = (name: string, body: string, type = '0') => {
  const header = Buffer.alloc(512)
  header.write(name.slice(0, 100), 0)
  header.write(`${Buffer.byteLength(body).toString(8).padStart(11, '0')}\0`, 124)
  header.write(type, 156)
  const bytes = Buffer.from(body)
  return Buffer.concat([header, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])
}
const plain = (...entries: Buffer[]) => Buffer.concat([...entries, Buffer.alloc(1024)])
const packed = (...entries: Buffer[]) => gzipSync(plain(...entries))
const pax = (path: string) => {
  const record = ` path=${path}\n`
  const length = record.length + String(record.length + 3).length
  return entry('PaxHeader', `${length}${record}`, 'x')
}
const inPieces = (bytes: Buffer, size: number) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size)),
  )

describe('a file of a tar', () => {
  const entries = [entry('c/a', 'x'.repeat(700)), entry('c/wanted', 'y'.repeat(513)), entry('c/wanted', 'second')]
  const archive = packed(...entries)
  const wanted = (name: string) => name === 'c/wanted'
  const find = async (bytes: Buffer, isWanted = wanted) =>
    (await readFromTar(inPieces(bytes, 1000), 'gzip', isWanted))?.toString() ?? null

  it.each([1, 7, 512, 1_000_000])(
    'is found whatever the pieces are that the archive comes in: %d bytes',
    async (size) => {
      expect((await readFromTar(inPieces(archive, size), 'gzip', wanted))?.toString()).toBe('y'.repeat(513))
    },
  )

  it('is found in archives that are packed otherwise, and in none that is packed otherwise than it says', async () => {
    const read = (bytes: Buffer, packing: 'none' | 'gzip' | 'zstd') =>
      readFromTar(inPieces(bytes, 1000), packing, wanted)
    expect((await read(plain(...entries), 'none'))?.length).toBe(513)
    expect((await read(zstdCompressSync(plain(...entries)), 'zstd'))?.length).toBe(513)
    expect(await read(archive, 'zstd')).toBeNull()
    expect(await read(archive, 'none')).toBeNull()
    expect(await read(plain(...entries), 'gzip')).toBeNull()
  })

  it('A95: is never a link, a folder or a device', async () => {
    for (const type of ['1', '2', '3', '4', '5', '6']) {
      expect(await find(packed(entry('c/wanted', '', type)))).toBeNull()
    }
  })

  it('is called by the name that a header before it gives, of PAX or of GNU', async () => {
    expect(await find(packed(pax('c/wanted'), entry('other', 'of pax')))).toBe('of pax')
    expect(await find(packed(entry('././@LongLink', 'c/wanted\0', 'L'), entry('other', 'of gnu')))).toBe('of gnu')
    expect(await find(packed(pax('elsewhere'), entry('c/wanted', 'a'), entry('c/wanted', 'b')))).toBe('b')
  })

  it.each([
    ['climbs', '../../c/wanted'],
    ['is absolute', '/c/wanted'],
    ['holds a NUL', 'x\0c/wanted'],
    ['has four kibibytes', `${'d/'.repeat(2040)}c/wanted`],
    ['is longer than any that is read', `${'d/'.repeat(100_000)}c/wanted`],
  ])('A95: is no other whose name %s', async (_, name) => {
    expect(await find(packed(pax(name), entry('short', 'a')))).toBeNull()
    expect(await find(packed(entry('././@LongLink', `${name}\0`, 'L'), entry('short', 'a')))).toBeNull()
    expect(await find(packed(entry(name, 'a')))).toBeNull()
  })

  it('A95: is missing from an archive without it, and from one that ends early or says that it is endless', async () => {
    expect(await find(packed(entry('c/a', 'x')))).toBeNull()
    expect(await find(gzipSync(entry('c/wanted', 'y'.repeat(600)).subarray(0, 700)))).toBeNull()
    expect(await find(archive.subarray(0, archive.length - 20))).toBe('y'.repeat(513))
    expect(await find(archive.subarray(0, 40))).toBeNull()
    expect(await find(Buffer.alloc(0))).toBeNull()
    const endless = entry('c/wanted', '')
    endless.fill(0xff, 124, 136)
    expect(await find(packed(endless))).toBeNull()
  })

  it('A95: is not looked for beyond ten thousand entries', async () => {
    const many = (count: number) =>
      packed(...Array.from({ length: count }, () => entry('x', '')), entry('c/wanted', 'y'))
    expect(await find(many(9_999))).toBe('y')
    expect(await find(many(10_000))).toBeNull()
  })

  it('tells of a source that fails', async () => {
    const broken = new Readable({ read: () => broken.destroy(new Error('the store is away')) })
    await expect(readFromTar(broken, 'gzip', wanted)).rejects.toThrow('the store is away')
  })
})

describe('files by folder', () => {
  it('come with folders first', () => {
    const files = ['b.txt', 'a/z', 'a/y/x', 'c/'].map((path, i) => ({ path, sizeBytes: i }))
    expect(fileTreeOf(files)).toEqual([
      {
        name: 'a',
        type: 'directory',
        children: [
          { name: 'y', type: 'directory', children: [{ name: 'x', type: 'file', size: 2 }] },
          { name: 'z', type: 'file', size: 1 },
        ],
      },
      { name: 'c', type: 'directory', children: [] },
      { name: 'b.txt', type: 'file', size: 0 },
    ])
  })

  it.each([
    ['lead out of the tree', '../../etc/passwd', ['etc']],
    ['are absolute', '/etc/passwd', ['etc']],
    ['name a prototype', '__proto__/polluted', ['__proto__']],
    ['are nowhere', '..', []],
    ['are deeper than files lie', 'a/'.repeat(2048), []],
  ])('A74, A95: show paths that %s', (_, path, names) => {
    expect(fileTreeOf([{ path, sizeBytes: 1 }]).map(({ name }) => name)).toEqual(names)
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  it('A95: take the first of a file and a folder of one name', () => {
    const files = ['a', 'a/b', 'c/d', 'c'].map((path) => ({ path, sizeBytes: 1 }))
    expect(fileTreeOf(files).map(({ name, type }) => `${type} ${name}`)).toEqual(['directory c', 'file a'])
  })
})

describe('readAll', () => {
  it('A95: stops at the first byte too many', async () => {
    expect((await readAll(inPieces(Buffer.alloc(10), 3), 10))?.length).toBe(10)
    let given = 0
    const endless = new Readable({ read: () => endless.push(Buffer.alloc(1000, (given += 1000) && 1)) })
    expect(await readAll(endless, 5000)).toBeNull()
    expect([given < 200_000, endless.destroyed]).toEqual([true, true])
  })
})
