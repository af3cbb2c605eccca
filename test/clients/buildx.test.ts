import { randomBytes } from 'node:crypto'
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { engine29Tools, startDocker29, type DockerEngine } from './docker-engine.ts'
import { buildImage } from './images.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking(...engine29Tools, 'busybox')
const suite = lack ? describe.skip : describe

suite(titled('docker 29 with buildx', lack), () => {
  let site: Site
  let engine: DockerEngine
  let image: string

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 'files' })
    engine = await startDocker29()
    image = `${site.host}/library/hello:1`
    await engine.mustDocker(['login', site.host, '-u', 'admin', '--password-stdin'], { input: ADMIN_PASSWORD })
  }, 180_000)
  afterAll(async () => {
    await engine?.[Symbol.asyncDispose]()
    await site?.[Symbol.asyncDispose]()
  }, 120_000)

  /** A folder to build: two stages, of which the image holds the second, with files that nobody has built before. */
  const context = (name: string) => {
    const folder = join(site.folder, name)
    mkdirSync(folder)
    copyFileSync(findTool('busybox')!, join(folder, 'busybox'))
    writeFileSync(join(folder, 'random'), randomBytes(20_000))
    writeFileSync(
      join(folder, 'Dockerfile'),
      'FROM scratch AS first\nCOPY random /first\n\nFROM scratch\nCOPY busybox /bin/busybox\nCOPY --from=first /first /second\n' +
        'CMD ["/bin/busybox", "echo", "hello from buildx"]\n',
    )
    return folder
  }
  const platforms = ['--platform', 'linux/amd64,linux/arm64']

  it('push, pull by tag and by digest, run', async () => {
    await buildImage(engine, image, 'hello from haven')
    await engine.mustDocker(['push', image])
    const { digest } = await site.manifest('library/hello', '1')
    for (const name of [image, `${site.host}/library/hello@${digest}`]) {
      await engine.mustDocker(['image', 'prune', '-af'])
      await engine.mustDocker(['pull', name])
      const said = await engine.mustDocker(['run', '--rm', '--network', 'host', name])
      expect(said.trim()).toBe('hello from haven')
    }
  })

  it('another repository gets every blob by a mount', async () => {
    const copy = `${site.host}/library/copies/hello:1`
    await engine.mustDocker(['pull', image])
    await engine.mustDocker(['tag', image, copy])
    await engine.mustDocker(['push', copy])
    await site.mounted('library/copies/hello', 3)
  })

  it('builds for two platforms with provenance and SBOM, and reads both back', async () => {
    const generator = `${site.host}/library/sbom-generator:1`
    await engine.mustDocker([
      'buildx',
      'build',
      '-q',
      '-t',
      generator,
      '--push',
      sbomGenerator(join(site.folder, 'generator')),
    ])
    const name = `${site.host}/library/attested:1`
    const attest = ['--provenance=mode=max', '--attest', `type=sbom,generator=${generator}`]
    await engine.mustDocker(['buildx', 'build', ...platforms, ...attest, '-t', name, '--push', context('attested')])

    const { body } = await site.manifest('library/attested', '1')
    const attestations = body.manifests!.filter(
      (child) => child.annotations?.['vnd.docker.reference.type'] === 'attestation-manifest',
    )
    expect(body.manifests).toHaveLength(4)
    expect(attestations).toHaveLength(2)
    const statement = await site.manifest('library/attested', attestations[0]!.digest)
    expect(statement.body.layers?.map((layer) => layer.annotations?.['in-toto.io/predicate-type']).toSorted()).toEqual([
      'https://slsa.dev/provenance/v1',
      'https://spdx.dev/Document',
    ])
    const inspect = (what: string) =>
      engine.mustDocker([
        'buildx',
        'imagetools',
        'inspect',
        '--format',
        `{{json (index .${what} "linux/arm64")}}`,
        name,
      ])
    expect(await inspect('Provenance')).toContain('"SLSA"')
    expect(await inspect('SBOM')).toContain('"made-by-hand"')

    const images = body.manifests!.filter((child) => !attestations.includes(child)).map((child) => child.digest)
    expect(await site.content('attested/artifacts/1')).toMatchObject({
      format: 'index',
      platforms: ['amd64', 'arm64'].map((architecture, i) => ({ os: 'linux', architecture, digest: images[i] })),
      evidence: attestations.map((child, i) => ({ digest: child.digest, about: images[i] })),
    })
    expect(await site.content(`attested/artifacts/${attestations[0]!.digest}`)).toMatchObject({ format: 'in-toto' })
  })

  it('pushes zstd layers and runs them', async () => {
    const name = `${site.host}/library/zstd:1`
    const output = `type=image,name=${name},push=true,compression=zstd,force-compression=true,oci-mediatypes=true`
    await engine.mustDocker(['buildx', 'build', '--provenance=false', '--output', output, context('zstd')])
    const layers = (await site.manifest('library/zstd', '1')).body.layers!
    expect(layers.map((layer) => layer.mediaType)).toEqual(
      layers.map(() => 'application/vnd.oci.image.layer.v1.tar+zstd'),
    )
    await engine.mustDocker(['image', 'prune', '-af'])
    const said = await engine.mustDocker(['run', '--rm', '--network', 'host', name])
    expect(said.trim()).toBe('hello from buildx')
  })

  it('keeps its cache in the registry: a builder that forgot everything builds nothing anew', async () => {
    const cache = `type=registry,ref=${site.host}/library/cache:1`
    const folder = context('cached')
    const build = (...args: string[]) =>
      engine.docker(['buildx', 'build', '--progress', 'plain', '-t', `${site.host}/library/cached:1`, ...args, folder])
    expect((await build('--cache-to', `${cache},mode=max`)).code).toBe(0)
    expect((await site.manifest('library/cache', '1')).body.config?.mediaType).toBe(
      'application/vnd.buildkit.cacheconfig.v0',
    )
    expect(await site.content('cache/artifacts/1')).toMatchObject({
      format: 'buildkit-cache',
      attributes: { records: expect.any(Number) },
    })
    await engine.mustDocker(['builder', 'prune', '-af'])
    await engine.mustDocker(['image', 'prune', '-af'])
    const again = await build('--cache-from', cache, '--push')
    expect(again.code).toBe(0)
    // A step that is known says so, or fetches its layers at once. One whose result nobody needs is not even looked for.
    const steps = new Set([...again.output.matchAll(/^#(\d+) \[.*COPY/gm)].map(([, step]) => step))
    expect(steps.size).toBeGreaterThan(1)
    for (const step of steps) expect(again.output).toMatch(new RegExp(`^#${step} (?:CACHED$|sha256:)`, 'm'))
    expect(await site.has('library/cached', '1')).toBe(true)
  })

  it('imagetools joins and copies what is in the registry', async () => {
    const copy = `${site.host}/library/copies/attested:1`
    await engine.mustDocker(['buildx', 'imagetools', 'create', '-t', copy, `${site.host}/library/attested:1`])
    const [from, to] = [
      await site.manifest('library/attested', '1'),
      await site.manifest('library/copies/attested', '1'),
    ]
    expect(to.digest).toBe(from.digest)
    expect(await engine.mustDocker(['buildx', 'imagetools', 'inspect', copy])).toContain('linux/arm64')
    await engine.mustDocker(['image', 'prune', '-af'])
    const said = await engine.mustDocker(['run', '--rm', '--network', 'host', copy])
    expect(said.trim()).toBe('hello from buildx')
  })

  it('anybody pulls from a public project, nobody pushes to it', async () => {
    await engine.mustDocker(['logout', site.host])
    await engine.mustDocker(['image', 'prune', '-af'])
    await engine.mustDocker(['pull', image])
    const ours = `${site.host}/library/nobodys:1` // what is there already would not be sent, and so not be refused
    await buildImage(engine, ours, 'hello from nobody')
    const refused = await engine.docker(['push', ours])
    expect(refused.code).not.toBe(0)
    expect(refused.output).toMatch(/denied|unauthorized|authorization failed/)
  })
})

/** An image that BuildKit runs to describe what it built: here with a fixed document. */
function sbomGenerator(folder: string): string {
  mkdirSync(folder)
  copyFileSync(findTool('busybox')!, join(folder, 'busybox'))
  const predicate = { spdxVersion: 'SPDX-2.3', SPDXID: 'SPDXRef-DOCUMENT', name: 'made-by-hand', packages: [] }
  const statement = {
    _type: 'https://in-toto.io/Statement/v0.1',
    predicateType: 'https://spdx.dev/Document',
    predicate,
  }
  writeFileSync(join(folder, 'statement.json'), JSON.stringify(statement))
  writeFileSync(
    join(folder, 'generate'),
    '#!/bin/busybox sh\nexec /bin/busybox cp /statement.json "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json"\n',
  )
  chmodSync(join(folder, 'generate'), 0o755)
  writeFileSync(
    join(folder, 'Dockerfile'),
    'FROM scratch\nCOPY busybox /bin/busybox\nCOPY statement.json generate /\nENTRYPOINT ["/generate"]\n',
  )
  return folder
}
