import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('oras', 'busybox', 'versitygw')
const suite = lack ? describe.skip : describe
const plain = '--plain-http'

suite(titled('oras', lack), () => {
  let site: Site
  let oras: GoTool
  let image: string
  let digest: string

  beforeAll(async () => {
    site = await startSite({ shape: 'single', store: 's3' })
    oras = await goTool(site, 'oras')
    image = `${site.host}/library/oras:1`
    const top = await writeLayout(join(site.folder, 'index'), {
      architectures: ['amd64', 'arm64'],
      compression: 'zstd',
    })
    digest = top.digest
    await oras('copy', '--from-oci-layout', `${join(site.folder, 'index')}:1`, '--to-plain-http', image)
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  it('pushes an index of images with zstd layers and pulls it by tag and by digest', async () => {
    expect((await oras('resolve', plain, image)).trim()).toBe(digest)
    for (const name of [image, `${site.host}/library/oras@${digest}`]) {
      const layout = `${join(site.folder, crypto.randomUUID())}:1`
      await oras('copy', '--from-plain-http', name, '--to-oci-layout', layout)
      expect((await oras('resolve', '--oci-layout', layout)).trim()).toBe(digest)
    }
    const arm = JSON.parse(await oras('manifest', 'fetch-config', plain, '--platform', 'linux/arm64', image)) as object
    expect(arm).toMatchObject({ architecture: 'arm64' })
  })

  it('pushes files and pulls them', async () => {
    const cwd = join(site.folder, 'files')
    mkdirSync(cwd)
    writeFileSync(join(cwd, 'notes.txt'), 'what was changed')
    const name = `${site.host}/library/oras:files`
    await oras.with({ cwd }, 'push', plain, name, '--artifact-type', 'application/vnd.test.notes', 'notes.txt')
    await oras.with({ cwd }, 'pull', plain, '-o', 'out', name)
    expect(readFileSync(join(cwd, 'out/notes.txt'), 'utf8')).toBe('what was changed')
    expect((await site.manifest('library/oras', 'files')).body.artifactType).toBe('application/vnd.test.notes')
  })

  it('attaches a tree of referrers, discovers it, and copies it with its subject by mounting every blob', async () => {
    const cwd = join(site.folder, 'referrers')
    mkdirSync(cwd)
    const attach = async (subject: string, type: string) => {
      writeFileSync(join(cwd, 'file'), type)
      const answer = await oras.with(
        { cwd },
        'attach',
        plain,
        subject,
        '--artifact-type',
        type,
        'file',
        '--format',
        'json',
      )
      return (JSON.parse(answer) as { digest: string }).digest
    }
    type Node = { artifactType?: string; digest: string; referrers?: Node[] }
    const discover = async (name: string, ...filter: string[]) =>
      JSON.parse(await oras('discover', plain, '--format', 'json', ...filter, name)) as Node

    const sbom = await attach(image, 'application/vnd.test.sbom')
    await attach(image, 'application/vnd.test.notes')
    await attach(`${site.host}/library/oras@${sbom}`, 'application/vnd.test.signature')
    const types = (node: Node) => node.referrers?.map((one) => one.artifactType).toSorted()
    expect(types(await discover(image))).toEqual(['application/vnd.test.notes', 'application/vnd.test.sbom'])
    const only = await discover(image, '--artifact-type', 'application/vnd.test.sbom')
    expect(types(only)).toEqual(['application/vnd.test.sbom'])

    const copy = `${site.host}/library/copies/oras:1`
    await oras('copy', '-r', '--from-plain-http', image, '--to-plain-http', copy)
    const copied = await discover(copy)
    expect(types(copied)).toEqual(['application/vnd.test.notes', 'application/vnd.test.sbom'])
    const deep = copied.referrers?.find((one) => one.digest === sbom)
    expect(types(deep!)).toEqual(['application/vnd.test.signature'])
    // Two images of two layers and a configuration, where busybox is one blob; three artifacts, and their empty configuration.
    await site.mounted('library/copies/oras', 9)
    expect(await site.uploads('library/copies/oras')).toEqual([])
  })

  it('joins images to an index, and tags it', async () => {
    const children = (await site.manifest('library/oras', '1')).body.manifests!.map((child) => child.digest)
    await oras('manifest', 'index', 'create', plain, `${site.host}/library/oras:joined`, ...children)
    expect((await site.manifest('library/oras', 'joined')).body.manifests?.map((child) => child.digest)).toEqual(
      children,
    )
    await oras('tag', plain, `${site.host}/library/oras:joined`, 'one', 'two')
    expect(await site.has('library/oras', 'two')).toBe(true)
  })

  it('lists many tags, the rest after one of them, and repositories', async () => {
    const tags = await site.addTags('library/oras', '1', 1100)
    const list = async (...after: string[]) =>
      (await oras('repo', 'tags', plain, ...after, `${site.host}/library/oras`)).trim().split('\n')
    expect(await list()).toEqual(['1', 'files', 'joined', 'one', ...tags, 'two'])
    expect(await list('--last', tags[1097]!)).toEqual([...tags.slice(1098), 'two'])
    const repositories = (await oras('repo', 'ls', plain, site.host)).trim().split('\n')
    expect(repositories).toEqual(['library/copies/oras', 'library/oras'])
  })

  it('deletes by digest what a tag names', async () => {
    const copy = `${site.host}/library/copies/oras`
    await oras('manifest', 'delete', plain, '-f', `${copy}@${digest}`)
    expect((await oras.try('resolve', plain, `${copy}:1`)).output).toContain('not found')
    expect((await oras('resolve', plain, image)).trim()).toBe(digest)
  })
})
