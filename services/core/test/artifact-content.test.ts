import { crc32, deflateSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { encode as encodeJpeg } from 'jpeg-js'
import { GifWriter } from 'omggif'
import { PNG } from 'pngjs'
import { digestOf, mediaTypes } from '@haven/oci'
import { contentOf, type Content } from './content.ts'
import { startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let content: Content
let owner: Credentials
let stranger: Credentials

beforeAll(async () => {
  core = await startCore()
  content = contentOf(core)
  owner = await core.user('owner')
  stranger = await core.user('stranger')
  await core.project('shop', owner)
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const IMAGE = mediaTypes.ociManifest
const INDEX = mediaTypes.ociIndex
const EMPTY = mediaTypes.ociEmpty
const at = (repository: string, reference = '1') =>
  `/projects/shop/repositories/${encodeURIComponent(encodeURIComponent(repository))}/artifacts/${reference}`
const harbor = (path: string, as: Credentials = owner) => core.send('GET', `/api/v2.0${path}`, { as })
const haven = (path: string, as: Credentials = owner) => core.send('GET', `/api/haven/v1${path}`, { as })

type File = { mediaType: string; bytes: Buffer | string; annotations?: Record<string, string> }
type Given = {
  config?: { mediaType: string; bytes: Buffer | string; annotations?: Record<string, string> }
  layers?: File[]
  more?: object
}

/** An artifact of these files, under the tag 1. */
async function push(repository: string, { config = { mediaType: EMPTY, bytes: '{}' }, layers = [], more }: Given) {
  const descriptor = async ({ bytes, ...said }: File) => ({
    ...said,
    ...(await content.blob(`shop/${repository}`, Buffer.from(bytes))),
  })
  const written = []
  for (const layer of layers) written.push(await descriptor(layer))
  const manifest = { config: await descriptor(config), layers: written, ...more }
  return content.pushManifest(`shop/${repository}`, '1', manifest, IMAGE)
}

describe('the content of an artifact', () => {
  const title = (name: string) => ({ 'org.opencontainers.image.title': name })

  it('of an unknown kind is its files, by the names that they were given, and where they are', async () => {
    await push('notes', {
      layers: [
        { mediaType: 'text/html', bytes: '<script>', annotations: title('../../notes.html') },
        { mediaType: 'application/octet-stream', bytes: 'no name' },
      ],
      more: { artifactType: 'application/x.notes' },
    })
    const { body } = await haven(`${at('notes')}/content`)
    const digests = ['<script>', 'no name'].map((bytes) => digestOf(Buffer.from(bytes)))
    expect(body).toEqual({
      format: 'unknown',
      attributes: {},
      additions: [],
      platforms: [],
      evidence: [],
      files: [
        {
          digest: digests[0],
          mediaType: 'text/html',
          sizeBytes: 8,
          title: '../../notes.html',
          href: `/v2/shop/notes/blobs/${digests[0]}`,
        },
        {
          digest: digests[1],
          mediaType: 'application/octet-stream',
          sizeBytes: 7,
          href: `/v2/shop/notes/blobs/${digests[1]}`,
        },
      ],
      truncated: false,
    })
  })

  it('is told to nobody who may not see the artifact', async () => {
    await push('secret', {})
    expect((await haven(`${at('secret')}/content`, stranger)).status).toBe(403)
    expect((await haven(`${at('secret')}/content`, null)).status).toBe(401)
    expect((await haven(`${at('secret')}/content/sbom`, stranger)).status).toBe(403)
    expect((await haven(`${at('secret', '2')}/content`)).status).toBe(404)
    expect((await haven(`${at('secret')}/content/sbom`)).status).toBe(400)
  })

  it('of an index is what runs, apart from what only tells of that', async () => {
    const image = await content.push('shop/multi', '', { config: { architecture: 'arm64', os: 'linux' } })
    const statement = await content.push('shop/multi', '', { layerType: 'application/vnd.in-toto+json' })
    const child = (digest: string, more: object) => ({ mediaType: IMAGE, digest, size: 1, ...more })
    const manifests = [
      child(image, { platform: { architecture: 'arm64', os: 'linux', variant: 'v8' } }),
      child(statement, {
        platform: { architecture: 'unknown', os: 'unknown' },
        annotations: { 'vnd.docker.reference.type': 'attestation-manifest', 'vnd.docker.reference.digest': image },
      }),
    ]
    await content.pushManifest('shop/multi', '1', { manifests }, INDEX)
    expect((await haven(`${at('multi')}/content`)).body).toMatchObject({
      format: 'index',
      platforms: [{ digest: image, os: 'linux', architecture: 'arm64', variant: 'v8' }],
      evidence: [{ digest: statement, about: image }],
    })
    expect((await haven(`${at('multi', statement)}/content`)).body).toMatchObject({ format: 'in-toto' })
    expect((await harbor(at('multi'))).body).toMatchObject({
      references: [{ child_digest: image }, { child_digest: statement }],
    })
  })

  it('of a chart has its signature, which Harbor has no word for', async () => {
    const PROVENANCE = '-----BEGIN PGP SIGNED MESSAGE-----\n'
    await push('signed', {
      config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', bytes: '{"name":"signed"}' },
      layers: [{ mediaType: 'application/vnd.cncf.helm.chart.provenance.v1.prov', bytes: PROVENANCE }],
    })
    const { body } = await haven(`${at('signed')}/content`)
    const { href } = (body as { additions: { name: string; href: string }[] }).additions.find(
      ({ name }) => name === 'provenance',
    )!
    const read = await core.send('GET', href, { as: owner })
    expect([read.text, read.headers.get('content-type')]).toEqual([PROVENANCE, 'text/plain; charset=utf-8'])
    expect(Object.keys(((await harbor(at('signed'))).body as { addition_links: object }).addition_links)).not.toContain(
      'provenance',
    )
    expect((await harbor(`${at('signed')}/additions/provenance`)).status).toBe(422)
  })

  it('of a bundle of CNAB is that of the child which holds its config', async () => {
    const config = await push('bundle', {
      config: { mediaType: 'application/vnd.cnab.config.v1+json', bytes: '{"name":"b"}' },
    })
    const invocation = await content.push('shop/bundle', '', {})
    const manifests = [
      { mediaType: IMAGE, digest: invocation, size: 1, annotations: { 'io.cnab.manifest.type': 'invocation' } },
      { mediaType: IMAGE, digest: config, size: 1, annotations: { 'io.cnab.manifest.type': 'config' } },
    ]
    const annotations = { 'org.opencontainers.artifactType': 'application/vnd.cnab.manifest.v1' }
    await content.pushManifest('shop/bundle', 'b', { manifests, annotations }, INDEX)
    expect((await harbor(at('bundle', 'b'))).body).toMatchObject({ type: 'CNAB', extra_attrs: { name: 'b' } })
  })

  it('of a model has readme, license and files, packed or not', async () => {
    const tar = (name: string, text: string) => {
      const header = Buffer.alloc(512)
      header.write(name)
      header.write(`${text.length.toString(8).padStart(11, '0')}\0`, 124)
      return Buffer.concat([header, Buffer.from(text.padEnd(512, '\0')), Buffer.alloc(1024)])
    }
    const layer = (kind: string, path: string, bytes: Buffer | string) => ({
      mediaType: `application/vnd.cncf.model.${kind}`,
      bytes,
      annotations: { 'org.cncf.model.filepath': path },
    })
    await push('model', {
      config: { mediaType: 'application/vnd.cncf.model.config.v1+json', bytes: '{"config":{"format":"gguf"}}' },
      layers: [
        layer('weight.v1.raw', 'weights/a.gguf', 'w'),
        layer('doc.v1.tar', 'README.md', tar('README.md', '# model')),
        layer('doc.v1.raw', 'LICENSE', 'free'),
        layer('code.v1.tar+gzip', '../run.py', gzipSync(tar('run.py', 'x'))),
      ],
      more: { artifactType: 'application/vnd.cncf.model.manifest.v1+json' },
    })
    expect((await harbor(at('model'))).body).toMatchObject({
      type: 'CNAI',
      extra_attrs: { config: { format: 'gguf' } },
    })
    const read = async (name: string) => {
      const { text, headers } = await harbor(`${at('model')}/additions/${name}`)
      return [headers.get('content-type'), text]
    }
    expect(await read('readme.md')).toEqual(['text/markdown; charset=utf-8', '# model'])
    expect(await read('license')).toEqual(['text/plain; charset=utf-8', 'free'])
    const [, files] = await read('files')
    expect(JSON.parse(files!)).toMatchObject([
      { name: 'weights', type: 'directory', children: [{ name: 'a.gguf', type: 'file', size: 1 }] },
      { name: 'LICENSE', size: 4 },
      { name: 'README.md' },
      { name: 'run.py' },
    ])
  })

  it('is not there while the store has not the config, and comes when it has', async () => {
    const digest = await push('later', { config: { mediaType: mediaTypes.ociConfig, bytes: '{"os":"linux"}' } })
    const locations = `update artifacts.blob_locations set store = $2 where store = $1`
    const rename = (from: string, to: string) => core.db.prisma.$executeRawUnsafe(locations, from, to)
    await rename(core.storage.name, 'elsewhere')
    expect((await harbor(at('later', digest))).body).not.toHaveProperty('extra_attrs')
    await rename('elsewhere', core.storage.name)
    expect((await harbor(at('later', digest))).body).toMatchObject({ extra_attrs: { os: 'linux' } })
  })
})

describe('an icon of its own', () => {
  const picture = (width: number, height: number, more: object = {}) => {
    const png = new PNG({ width, height, ...more })
    png.data.fill(200)
    return PNG.sync.write(png)
  }
  const ICON = 'io.goharbor.artifact.v1alpha1.icon'
  const pushWith = (
    repository: string,
    bytes: Buffer,
    mediaType = 'image/png',
    configType = 'application/vnd.acme.model.config.v1+json',
  ) =>
    push(repository, {
      config: {
        mediaType: configType,
        bytes: '{"weight":7,"secret":"s","git":"g"}',
        annotations: { 'io.goharbor.artifact.v1alpha1.skip-list': 'secret, git' },
      },
      layers: [
        { mediaType: 'application/octet-stream', bytes: 'model' },
        { mediaType, bytes, annotations: { [ICON]: '' } },
      ],
    })
  const iconOf = async (repository: string) => ((await harbor(at(repository))).body as { icon: string }).icon
  const drawn = (digest: string) => core.send('GET', `/api/v2.0/icons/${digest}`)
  const UNKNOWN = 'sha256:da834479c923584f4cbcdecc0dac61f32bef1d51e8aae598cf16bd154efab49f'

  const gif = () => {
    const bytes = Buffer.alloc(1000)
    const writer = new GifWriter(bytes, 4, 2, { palette: [0xff0000, 0x00ff00] })
    writer.addFrame(0, 0, 4, 2, [0, 1, 0, 1, 0, 1, 0, 1])
    return bytes.subarray(0, writer.end())
  }
  const jpeg = (width = 100, height = 60) =>
    encodeJpeg({ width, height, data: Buffer.alloc(width * height * 4, 90) }, 80).data

  it.each([
    ['png', picture(200, 100), [50, 25]],
    ['png', picture(20, 10), [20, 10]],
    ['jpeg', jpeg(), [50, 30]],
    ['gif', gif(), [4, 2]],
  ])('is a %s, and everybody gets it as a small PNG', async (kind, bytes, size) => {
    const repository = `icon-${kind}-${bytes.length}`
    await pushWith(repository, bytes, `image/${kind}`)
    expect((await harbor(at(repository))).body).toMatchObject({
      type: 'MODEL',
      icon: digestOf(bytes),
      extra_attrs: { weight: 7 },
    })
    const { status, body } = await drawn(digestOf(bytes))
    const { content: encoded, ...rest } = body as { content: string }
    expect([status, rest]).toEqual([200, { 'content-type': 'image/png' }])
    const png = PNG.sync.read(Buffer.from(encoded, 'base64'))
    expect([png.width, png.height]).toEqual(size)
  })

  it('hides what is to be hidden', async () => {
    await pushWith('hiding', picture(1, 1))
    expect((await harbor(at('hiding'))).body).toMatchObject({ extra_attrs: { weight: 7 } })
    expect(Object.keys(((await harbor(at('hiding'))).body as { extra_attrs: object }).extra_attrs)).toEqual(['weight'])
  })

  it('is gone when the artifact is', async () => {
    const bytes = picture(3, 3)
    await pushWith('going', bytes)
    await iconOf('going')
    expect((await drawn(digestOf(bytes))).status).toBe(200)
    await core.send('DELETE', `/api/v2.0${at('going')}`, { as: owner })
    expect((await drawn(digestOf(bytes))).status).toBe(404)
  })

  it('is none of a kind that Harbor has an icon for, and none of a layer that only is a picture', async () => {
    const bytes = picture(5, 5)
    await pushWith('chart-icon', bytes, 'image/png', 'application/vnd.cncf.helm.config.v1+json')
    expect(await iconOf('chart-icon')).not.toBe(digestOf(bytes))
    const plain = picture(6, 6)
    await push('plain-icon', { layers: [{ mediaType: 'image/png', bytes: plain }] })
    expect(await iconOf('plain-icon')).toBe(UNKNOWN)
    expect((await drawn(digestOf(plain))).status).toBe(404)
  })

  it.each([
    ['a picture by its type only', Buffer.from('<svg onload="alert(1)"/>'), 'image/png'],
    ['a drawing that runs scripts', Buffer.from('<svg onload="alert(1)"/>'), 'image/svg+xml'],
    ['larger than icons are', Buffer.concat([picture(1, 1), Buffer.alloc(1024 * 1024)]), 'image/png'],
  ])('A94: is none that is %s', async (what, bytes, mediaType) => {
    const repository = what.replaceAll(' ', '-')
    await pushWith(repository, bytes, mediaType)
    expect(await iconOf(repository)).toBe(UNKNOWN)
    expect((await drawn(digestOf(bytes))).status).toBe(404)
  })

  const chunk = (type: string, data: Buffer) => {
    const framed = Buffer.alloc(data.length + 12)
    framed.writeUInt32BE(data.length)
    framed.write(type, 4)
    data.copy(framed, 8)
    framed.writeUInt32BE(crc32(framed.subarray(4, data.length + 8)), data.length + 8)
    return framed
  }
  const header = (interlaced: 0 | 1) => chunk('IHDR', Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 6, 0, 0, interlaced]))
  const signature = picture(1, 1).subarray(0, 8)
  /** One pixel behind its filter. It is the same interlaced or not, but decoders unpack interlaced pictures without a bound. */
  const pixel = Buffer.concat([chunk('IDAT', deflateSync(Buffer.alloc(5))), chunk('IEND', Buffer.alloc(0))])
  /** The pictures above, with numbers of their headers written over. */
  const wideGif = gif()
  const wideFrame = gif()
  for (const at of [6, 8]) wideGif.writeUInt16LE(2_000, at)
  for (const at of [5, 7]) wideFrame.writeUInt16LE(2_000, wideFrame.indexOf(0x2c) + at)

  it.each([
    ['a PNG of more than a megapixel', picture(2_000, 1_000)],
    ['an interlaced PNG', Buffer.concat([signature, header(1), pixel])],
    ['a PNG of two headers', Buffer.concat([signature, header(0), header(1), pixel])],
    ['a PNG cut short', picture(30, 30).subarray(0, 40)],
    ['a GIF of four megapixels', wideGif],
    ['a GIF with a frame of four megapixels', wideFrame],
    ['a GIF cut short', gif().subarray(0, 20)],
    ['a JPEG of more than a megapixel', jpeg(2_000, 1_000)],
    ['a JPEG cut short', jpeg().subarray(0, 30)],
  ])('A95: is not drawn of %s', async (what, bytes) => {
    const repository = what.toLowerCase().replaceAll(' ', '-')
    await pushWith(repository, bytes, 'image/png')
    await iconOf(repository)
    expect((await drawn(digestOf(bytes))).status).toBe(404)
  })
})

describe('hostile content', () => {
  it.each([
    ['a key twice', '{"os":"a","os":"b"}', undefined],
    ['a number that is none', '{"os":"linux","n":1e400}', { os: 'linux' }],
    ['a prototype', '{"os":"linux","__proto__":{"polluted":1}}', { os: 'linux' }],
    ['bytes of a picture', Buffer.from([0x89, 0x50, 0x4e, 0x47]), undefined],
    ['text that is no UTF-8', Buffer.from([0x22, 0xff, 0x22]), undefined],
    ['a million brackets', '['.repeat(1_000_000), undefined],
    ['a hundred thousand keys', `{${Array.from({ length: 90_000 }, (_, i) => `"k${i}":0`).join()}}`, { os: '' }],
  ])('A76, A95: an image with a config of %s is listed', async (what, bytes, told) => {
    const repository = what.replaceAll(' ', '-').toLowerCase()
    await push(repository, { config: { mediaType: mediaTypes.ociConfig, bytes } })
    const listed = await harbor(`/projects/shop/repositories/${repository}/artifacts`)
    const [artifact] = listed.body as { extra_attrs?: object }[]
    expect([listed.status, listed.text.length < 10_000]).toEqual([200, true])
    if (told) expect(artifact!.extra_attrs).toMatchObject(told)
    else expect(artifact).not.toHaveProperty('extra_attrs')
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  it('A95: a config of sixty thousand keys tells what fits', async () => {
    const bytes = `{${Array.from({ length: 60_000 }, (_, i) => `"k${i}":0`).join()}}`
    await push('keys', { config: { mediaType: 'application/vnd.acme.x.config.v1+json', bytes } })
    expect((await harbor(at('keys'))).text.length).toBeLessThan(70_000)
  })

  it('A86: an index of eight levels is read, copied and deleted', async () => {
    let digest = await content.push('shop/deep', '', { config: { os: 'linux', of: 'deep' } })
    let mediaType: string = IMAGE
    for (let level = 0; level < 8; level++) {
      const manifests = [{ mediaType, digest, size: 1 }]
      digest = await content.pushManifest(
        'shop/deep',
        level === 7 ? '1' : '',
        { manifests, annotations: { level: String(level) } },
        INDEX,
      )
      mediaType = INDEX
    }
    expect((await harbor(at('deep'))).status).toBe(200)
    expect((await harbor('/projects/shop/repositories/deep/artifacts')).body).toHaveLength(1)
    const copied = await core.send(
      'POST',
      '/api/v2.0/projects/shop/repositories/deep-copy/artifacts?from=shop/deep:1',
      { as: owner },
    )
    expect(copied.status).toBe(201)
    expect(
      (await harbor('/projects/shop/repositories/deep-copy/artifacts?q=base%3D*')).headers.get('x-total-count'),
    ).toBe('9')
    expect((await core.send('DELETE', `/api/v2.0${at('deep')}`, { as: owner })).status).toBe(200)
    expect((await harbor('/projects/shop/repositories/deep/artifacts?q=base%3D*')).body).toEqual([])
  })

  it('A86: manifests that are about each other by their tags, or about themselves, are read and deleted', async () => {
    const first = await content.push('shop/circle', 'a', { config: { n: 1 } })
    const second = await content.push('shop/circle', 'b', { config: { n: 2 } })
    const tag = (digest: string, of: string) =>
      core.send('POST', `/api/v2.0${at('circle', digest)}/tags`, {
        as: owner,
        body: { name: `${of.replace(':', '-')}.sig` },
      })
    expect((await tag(first, second)).status).toBe(201)
    expect((await tag(second, first)).status).toBe(201)
    for (const digest of [first, second]) {
      expect((await harbor(`${at('circle', digest)}?with_accessory=true&with_inherited_accessory=true`)).status).toBe(
        200,
      )
      expect((await harbor(`${at('circle', digest)}/accessories`)).status).toBe(200)
    }
    expect((await core.send('DELETE', `/api/v2.0${at('circle', first)}`, { as: owner })).status).toBe(200)
    const own = await content.push('shop/self', 'a', { config: { n: 3 } })
    await core.send('POST', `/api/v2.0${at('self', own)}/tags`, {
      as: owner,
      body: { name: `${own.replace(':', '-')}.sig` },
    })
    expect((await harbor(`${at('self', own)}?with_accessory=true`)).status).toBe(200)
    expect((await core.send('DELETE', `/api/v2.0${at('self', own)}`, { as: owner })).status).toBe(200)
  })

  it('A86: an index of ten thousand children is listed and read', async () => {
    const manifests = Array.from({ length: 10_000 }, (_, i) => ({
      mediaType: IMAGE,
      digest: digestOf(Buffer.from(String(i))),
      size: 1,
    }))
    await content.pushManifest('shop/wide', '1', { manifests }, INDEX)
    const listed = await harbor('/projects/shop/repositories/wide/artifacts?with_accessory=true')
    expect([listed.status, listed.headers.get('x-total-count')]).toEqual([200, '1'])
    expect((await haven(`${at('wide')}/content`)).status).toBe(200)
    await expect(
      content.pushManifest('shop/wide', '2', { manifests: [...manifests, manifests[0]] }, INDEX),
    ).rejects.toThrow('10000 descriptors')
  })

  it('A86: layers beyond the first thousand are counted and not told', async () => {
    const blob = { mediaType: 'application/octet-stream', ...(await content.blob('shop/layers', Buffer.from('x'))) }
    const config = { mediaType: EMPTY, ...(await content.blob('shop/layers', Buffer.from('{}'))) }
    await content.pushManifest('shop/layers', '1', { config, layers: Array.from({ length: 9_000 }, () => blob) }, IMAGE)
    const { body, text } = await haven(`${at('layers')}/content`)
    expect([(body as { files: object[] }).files.length, (body as { truncated: boolean }).truncated]).toEqual([
      999,
      true,
    ])
    expect(text.length).toBeLessThan(500_000)
  })

  it('A94, A95: annotations of 64 KiB and of markup are told as they are', async () => {
    const annotations = { long: 'x'.repeat(64 * 1024), markup: '<img src=x onerror=alert(1)>', constructor: 'c' }
    await push('annotated', { more: { annotations } })
    const read = await harbor(at('annotated'))
    expect((read.body as { annotations: object }).annotations).toEqual(annotations)
    expect(read.headers.get('content-type')).toMatch(/^application\/json/)
  })

  it.each([
    [
      'a readme with scripts',
      'readme.md',
      'README.md',
      '<script>alert(1)</script>[x](javascript:alert(1))',
      'text/markdown',
    ],
    ['values with markup', 'values.yaml', 'values.yaml', '<html><body onload=alert(1)>', 'text/plain'],
  ])('A94: %s is text', async (_, addition, name, text, type) => {
    const body = Buffer.from(text)
    const head = Buffer.alloc(512)
    head.write(`c/${name}`)
    head.write(`${body.length.toString(8).padStart(11, '0')}\0`, 124)
    const layer = gzipSync(Buffer.concat([head, body, Buffer.alloc(2048 - body.length)]))
    await push('scripted', {
      config: { mediaType: 'application/vnd.cncf.helm.config.v1+json', bytes: `{"name":"${name}"}` },
      layers: [{ mediaType: 'application/vnd.cncf.helm.chart.content.v1.tar+gzip', bytes: layer }],
    })
    const read = await harbor(`${at('scripted')}/additions/${addition}`)
    expect([read.text, read.headers.get('content-type')]).toEqual([text, `${type}; charset=utf-8`])
  })

  it('A94: a bill of materials that says it is a page is told as text', async () => {
    await push('page', {
      layers: [{ mediaType: 'text/html', bytes: '<script>alert(1)</script>' }],
      more: { artifactType: 'application/spdx+json' },
    })
    const read = await haven(`${at('page')}/content/sbom`)
    expect([read.status, read.headers.get('content-type')]).toEqual([200, 'text/plain; charset=utf-8'])
  })
})
