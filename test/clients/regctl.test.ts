import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('regctl', 'busybox')
const suite = lack ? describe.skip : describe

suite(titled('regctl', lack), () => {
  let site: Site
  let regctl: GoTool
  let image: string
  let digest: string

  beforeAll(async () => {
    site = await startSite({ shape: 'single', store: 'files' })
    regctl = await goTool(site, 'regctl')
    image = `${site.host}/library/regctl:1`
    digest = (await writeLayout(join(site.folder, 'index'), { architectures: ['amd64', 'arm64'] })).digest
    await regctl('image', 'copy', `ocidir://${join(site.folder, 'index')}:1`, image)
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  it('pushes an index and pulls it by tag and by digest', async () => {
    expect((await regctl('image', 'digest', image)).trim()).toBe(digest)
    for (const name of [image, `${site.host}/library/regctl@${digest}`]) {
      const folder = `ocidir://${join(site.folder, crypto.randomUUID())}:1`
      await regctl('image', 'copy', name, folder)
      expect((await regctl('image', 'digest', folder)).trim()).toBe(digest)
    }
    expect(JSON.parse(await regctl('image', 'config', '--platform', 'linux/arm64', image))).toMatchObject({
      architecture: 'arm64',
    })
  })

  it('makes an index of parts, and images with layers of zstd and digests of SHA-512', async () => {
    const joined = `${site.host}/library/regctl:joined`
    await regctl('index', 'create', joined, '--ref', image, '--platform', 'linux/arm64')
    expect((await site.manifest('library/regctl', 'joined')).body.manifests).toHaveLength(1)
    await regctl('image', 'mod', image, '--create', 'zstd', '--layer-compress', 'zstd')
    const child = (await site.manifest('library/regctl', 'zstd')).body.manifests?.[0]?.digest
    expect((await site.manifest('library/regctl', child!)).body.layers?.[0]?.mediaType).toMatch(/zstd$/)
    await regctl('image', 'mod', image, '--create', 'long', '--digest-algo', 'sha512')
    expect((await regctl('image', 'digest', `${site.host}/library/regctl:long`)).trim()).toMatch(/^sha512:/)
    await regctl('image', 'copy', `${site.host}/library/regctl:long`, `ocidir://${join(site.folder, 'long')}:1`)
  })

  it('attaches artifacts, finds them by their type, and copies them with their subject by mounting every blob', async () => {
    const attach = (type: string, text: string, ...more: string[]) =>
      regctl.with({ input: text }, 'artifact', 'put', '--artifact-type', type, '--subject', image, ...more)
    await attach('application/vnd.test.sbom', 'an SBOM')
    await attach('application/vnd.test.notes', 'notes', '--annotation', 'org.example=1')
    const found = async (name: string, ...filter: string[]) => {
      const list = await regctl('artifact', 'list', name, ...filter, '--format', '{{json .Manifest}}')
      return (JSON.parse(list) as { manifests: { artifactType: string }[] }).manifests.map((one) => one.artifactType)
    }
    expect((await found(image)).toSorted()).toEqual(['application/vnd.test.notes', 'application/vnd.test.sbom'])
    expect(await found(image, '--filter-artifact-type', 'application/vnd.test.sbom')).toEqual([
      'application/vnd.test.sbom',
    ])

    const copy = `${site.host}/library/copies/regctl:1`
    await regctl('image', 'copy', '--referrers', image, copy)
    expect((await regctl('image', 'digest', copy)).trim()).toBe(digest)
    expect(await found(copy)).toHaveLength(2)
    // Two images of two layers and a configuration, where busybox is one blob; two artifacts, and their empty configuration.
    await site.mounted('library/copies/regctl', 8)
    expect(await site.uploads('library/copies/regctl')).toEqual([])
    expect(
      await regctl('artifact', 'get', '--subject', copy, '--filter-artifact-type', 'application/vnd.test.sbom'),
    ).toBe('an SBOM')
  })

  it('pushes a file as an artifact of its own and reads it back', async () => {
    writeFileSync(join(site.folder, 'note.txt'), 'a note')
    const name = `${site.host}/library/regctl:note`
    const file = ['--file', join(site.folder, 'note.txt'), '--file-media-type', 'text/plain']
    await regctl('artifact', 'put', '--artifact-type', 'application/vnd.test.note', ...file, name)
    expect(await regctl('artifact', 'get', name)).toBe('a note')
  })

  it('lists tags and repositories page by page', async () => {
    const tags = await site.addTags('library/regctl', '1', 25)
    const all = ['1', 'joined', 'long', 'note', ...tags, 'zstd']
    const listed: string[] = []
    for (;;) {
      const last = listed.length > 0 ? ['--last', listed.at(-1)!] : []
      const page = (await regctl('tag', 'ls', `${site.host}/library/regctl`, '--limit', '10', ...last)).trim()
      if (page === '') break
      listed.push(...page.split('\n'))
    }
    expect(listed).toEqual(all)
    const first = (await regctl('repo', 'ls', site.host, '--limit', '1')).trim()
    const second = (await regctl('repo', 'ls', site.host, '--limit', '1', '--last', first)).trim()
    expect([first, second]).toEqual(['library/copies/regctl', 'library/regctl'])
  })

  it('deletes a tag and leaves its manifest, and deletes a manifest with what refers to it', async () => {
    await regctl('tag', 'delete', `${site.host}/library/regctl:joined`)
    expect(await site.has('library/regctl', 'joined')).toBe(false)
    expect(await site.has('library/regctl', '1')).toBe(true)
    const copy = `${site.host}/library/copies/regctl`
    await regctl('manifest', 'delete', '--referrers', `${copy}@${digest}`)
    expect(await site.has('library/copies/regctl', digest)).toBe(false)
    expect((await regctl.try('image', 'digest', `${copy}:1`)).code).not.toBe(0)
    expect((await regctl('image', 'digest', image)).trim()).toBe(digest)
  })
})
