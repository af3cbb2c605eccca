import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { startDocker29, type DockerEngine } from '../clients/docker-engine.ts'
import { must } from '../clients/tools.ts'
import { bake, bundle, EPOCH, imageTools, importBase, importImage, root, services } from './images.ts'

const lack = lacking(...imageTools)
const suite = lack ? describe.skip : describe

const LARGEST_BYTES = 120 * 1024 * 1024
const PLANTED = 'a-secret-of-the-machine-that-builds'

const labels = { REVISION: 'c0ffee', HAVEN_VERSION: 'first' }
const created = new Date(EPOCH * 1000).toISOString().replace('.000', '')

type Inspected = {
  Id: string
  Architecture: string
  Created: string
  Config: {
    User: string
    Entrypoint: string[]
    Cmd: string[] | null
    Env: string[]
    Labels: Record<string, string>
    Healthcheck: { Test: string[] }
  }
  RootFS: { Layers: string[] }
}
type Layer = { digest: string; size: number }

suite(titled('the images', lack), () => {
  let engine: DockerEngine
  let folder: string
  const bundles = (name: string) => join(folder, name)
  const inspect = async (version: string): Promise<Record<string, Inspected>> => {
    const names = services.map((service) => `haven/${service}:${version}`)
    const all = JSON.parse(await engine.mustDocker(['image', 'inspect', ...names])) as Inspected[]
    return Object.fromEntries(services.map((service, at) => [service, all[at]!]))
  }
  const locked = ['--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--network', 'none']

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-bundles-'))
    engine = await startDocker29()
    const planted = { HAVEN_ENCRYPTION_KEY: PLANTED, npm_config__authToken: PLANTED }
    await Promise.all([importBase(engine), bundle(bundles('first'), planted), bundle(bundles('second'))])
    await bake(engine, bundles('first'), { env: { HAVEN_ENCRYPTION_KEY: PLANTED, ...labels } })
  }, 180_000)
  afterAll(async () => {
    await engine?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  it('are the same to the last bit when they are built again, of bundles made again', async () => {
    const first = await inspect('first')
    await bake(engine, bundles('second'), { args: ['--no-cache'], env: labels })
    const second = await inspect('first')
    for (const service of services) {
      const layers = (images: Record<string, Inspected>) => [service, images[service]!.RootFS.Layers]
      expect(layers(second)).toEqual(layers(first))
    }
    expect(services.map((service) => second[service]!.Id)).toEqual(services.map((service) => first[service]!.Id))
  }, 120_000)

  it('differ from each other in their last layer only', async () => {
    const layers = Object.values(await inspect('first')).map(({ RootFS }) => RootFS.Layers)
    expect(new Set(layers.map((each) => each.slice(0, -1).join()))).toHaveProperty('size', 1)
    expect(new Set(layers.map((each) => each.at(-1)))).toHaveProperty('size', services.length)
  })

  it('run as a user without rights, without a shell, and say what they are', async () => {
    for (const [service, { Config, Created }] of Object.entries(await inspect('first'))) {
      expect(Created).toBe(created)
      expect(Config).toMatchObject({
        User: '65532:65532',
        Cmd: null,
        Healthcheck: { Test: ['CMD', 'node', '/app/lib/healthy.js'] },
      })
      expect(Config.Entrypoint).toEqual([
        'node',
        '--max-semi-space-size=16',
        '--no-parallel-scavenge',
        '--expose-gc',
        '--disable-warning=DEP0060',
        '/app/lib/main.js',
      ])
      expect(Config.Env).toEqual(expect.arrayContaining(['MALLOC_ARENA_MAX=2', `HAVEN_SERVICE=${service}`]))
      expect(Config.Labels).toMatchObject({
        'org.opencontainers.image.title': `Haven ${service}`,
        'org.opencontainers.image.version': 'first',
        'org.opencontainers.image.revision': 'c0ffee',
        'org.opencontainers.image.created': created,
        'org.opencontainers.image.source': expect.any(String) as unknown,
      })
    }
  })

  it('are small, and hold nothing of the machine that built them', async () => {
    const saved = join(folder, 'saved')
    mkdirSync(saved)
    const names = services.map((service) => `haven/${service}:first`)
    await engine.mustDocker(['save', '-o', join(saved, 'all.tar'), ...names])
    await must('tar', ['-C', saved, '-xf', join(saved, 'all.tar')])
    const blob = (digest: string) => join(saved, 'blobs', digest.replace(':', '/'))
    const json = (file: string) =>
      JSON.parse(readFileSync(file, 'utf8')) as { manifests: Layer[]; layers: Layer[]; config: Layer }
    const manifests = json(join(saved, 'index.json')).manifests.map(({ digest }) => json(blob(digest)))
    expect(manifests).toHaveLength(services.length)
    const ours = new Set<string>()
    for (const { layers, config } of manifests) {
      expect(layers.reduce((sum, { size }) => sum + size, 0)).toBeLessThan(LARGEST_BYTES)
      expect(readFileSync(blob(config.digest), 'utf8')).not.toContain(PLANTED)
      for (const { digest } of layers.slice(1)) ours.add(digest) // the first is the base
    }
    const unpacked = join(folder, 'unpacked')
    mkdirSync(unpacked)
    for (const digest of ours) await must('tar', ['-C', unpacked, '-xf', blob(digest)])
    const files = filesBelow(unpacked)
    expect(files.filter((file) => /\.map$|\.npmrc$|\.env$|\.git\b|\.test\.|\.pem$|\.key$/.test(file))).toEqual([])
    const telling = [PLANTED, root, folder, 'sourceMappingURL=data:', '_authToken']
    const found = files.flatMap((file) => {
      const text = readFileSync(file, 'latin1')
      return telling.filter((each) => text.includes(each)).map((each) => `${each} in ${file.slice(unpacked.length)}`)
    })
    expect(found).toEqual([])
    expect(files.length).toBeGreaterThan(50)
  }, 60_000)

  it('start on a root that cannot be written, and say which settings are missing', async () => {
    const alone = services.filter((name) => name !== 'launcher')
    const started = await Promise.all(
      alone.map((service) => engine.docker(['run', '--rm', ...locked, `haven/${service}:first`])),
    )
    const missing = expect.stringContaining('HAVEN_PROXY_SECRET') as unknown
    expect(started.map(({ code, output }) => [code, output])).toEqual(alone.map(() => [78, missing]))
    const { code, output } = await engine.docker(['run', '--rm', ...locked, 'haven/launcher:first', 'migrate'])
    expect([code, output]).toEqual([78, expect.stringContaining('DATABASE_URL')])
    expect(await engine.mustDocker(['run', '--rm', ...locked, 'haven/launcher:first', '--help'])).toContain(
      'haven migrate',
    )
  }, 120_000)

  it('are built for another processor by the same lines', async () => {
    // Nothing on it is run.
    await importImage(engine, 'haven-test/base-arm64:1', { programs: [findTool('busybox')!], platform: 'linux/arm64' })
    const args = ['--set', '*.platform=linux/arm64', 'core', 'launcher']
    await bake(engine, bundles('first'), { args, env: { BASE: 'haven-test/base-arm64:1', HAVEN_VERSION: 'arm64' } })
    const read = async (name: string) =>
      (JSON.parse(await engine.mustDocker(['image', 'inspect', name])) as Inspected[])[0]!
    const [here, there] = [await read('haven/core:first'), await read('haven/core:arm64')]
    expect([here.Architecture, there.Architecture]).toEqual(['amd64', 'arm64'])
    expect(there.RootFS.Layers.slice(1)).toEqual(here.RootFS.Layers.slice(1))
  }, 60_000)
})

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((file) => statSync(file).isFile())
}
