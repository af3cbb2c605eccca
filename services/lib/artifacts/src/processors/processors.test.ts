import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from '@jest/globals'
import { readAll } from './bounded.ts'
import { processorOf } from './index.ts'
import type { Addition, Content, JsonObject } from './processor.ts'
import { readFromTar } from './tar.ts'

const nothing: Content = { layers: [], config: async () => null, open: async () => null }
const types = ['IMAGE', 'CHART', 'WASM', 'SBOM', 'UNKNOWN']

describe.each(types)('the processor of %s', (type) => {
  const processor = processorOf({ kind: 'image', type })

  it.each<[string, JsonObject]>([
    ['an empty one', {}],
    ['one of other types', { config: 1, architecture: {}, os: null, created: [], author: 7, history: 'x' }],
    ['one that names what objects have', { constructor: 'x', toString: 1, config: { Labels: { hasOwnProperty: 1 } } }],
  ])('A95: takes %s for a config', (_, config) => {
    expect(() => JSON.stringify(processor.attributes(config, new Set()))).not.toThrow()
  })

  it('A95: has nothing to add where there is nothing to read', async () => {
    for (const name of Object.keys(processor.additions) as Addition[]) {
      const found = await processor.additions[name]!(nothing)
      expect([name, found?.body ?? 'null']).toEqual([name, 'null'])
    }
  })
})

describe('attributes', () => {
  const image = (config: JsonObject) => processorOf({ kind: 'image', type: 'IMAGE' }).attributes(config, new Set())

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

  it('of an unknown type are its config, but for what is to be hidden; of an index there are none', () => {
    const config = { a: 1, b: 2 }
    expect(processorOf({ kind: 'image', type: 'X' }).attributes(config, new Set(['b']))).toEqual({ a: 1 })
    expect(processorOf({ kind: 'index', type: 'IMAGE' }).attributes(config, new Set())).toEqual({})
  })
})

const entry = (name: string, body: string, type = '0') => {
  const header = Buffer.alloc(512)
  header.write(name, 0)
  header.write(`${body.length.toString(8).padStart(11, '0')}\0`, 124)
  header.write(type, 156)
  return Buffer.concat([header, Buffer.from(body), Buffer.alloc((512 - (body.length % 512)) % 512)])
}
const packed = (...entries: Buffer[]) => gzipSync(Buffer.concat([...entries, Buffer.alloc(1024)]))
const inPieces = (bytes: Buffer, size: number) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size)),
  )

describe('a file of a tar', () => {
  const archive = packed(entry('c/a', 'x'.repeat(700)), entry('c/wanted', 'y'.repeat(513)), entry('c/wanted', 'second'))
  const wanted = (name: string) => name === 'c/wanted'

  it.each([1, 7, 512, 1_000_000])(
    'is found whatever the pieces are that the archive comes in: %d bytes',
    async (size) => {
      expect((await readFromTar(inPieces(archive, size), wanted))?.toString()).toBe('y'.repeat(513))
    },
  )

  it('A95: is never a link, a folder or a device', async () => {
    for (const type of ['1', '2', '3', '5', '6']) {
      expect(await readFromTar(inPieces(packed(entry('c/wanted', '', type)), 100), wanted)).toBeNull()
    }
  })

  it('is missing from an archive without it, and from one that ends early', async () => {
    expect(await readFromTar(inPieces(packed(entry('c/a', 'x')), 100), wanted)).toBeNull()
    expect(
      await readFromTar(inPieces(gzipSync(entry('c/wanted', 'y'.repeat(600)).subarray(0, 700)), 100), wanted),
    ).toBeNull()
    expect(await readFromTar(inPieces(Buffer.alloc(0), 1), wanted)).toBeNull()
  })

  it('tells of a source that fails', async () => {
    const broken = new Readable({ read: () => broken.destroy(new Error('the store is away')) })
    await expect(readFromTar(broken, wanted)).rejects.toThrow('the store is away')
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
