import { gzipSync } from 'node:zlib'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { lacking, titled } from '@haven/testkit/tools'
import { goTool, type GoTool } from './go-tools.ts'
import { tarOf, writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('crane', 'busybox', 'versitygw')
const suite = lack ? describe.skip : describe

suite(titled('crane', lack), () => {
  let site: Site
  let crane: GoTool
  let image: string
  let digest: string

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 's3' })
    crane = await goTool(site, 'crane')
    image = `${site.host}/library/crane:1`
    await writeLayout(join(site.folder, 'index'), { architectures: ['amd64', 'arm64'] })
    await crane('push', join(site.folder, 'index'), image)
    digest = (await crane('digest', image)).trim()
  }, 180_000)
  afterAll(async () => site?.[Symbol.asyncDispose](), 60_000)

  it('pushes an index, resolves a platform, and pulls by tag and by digest what it pushed', async () => {
    expect((await site.manifest('library/crane', '1')).digest).toBe(digest)
    const arm = (await crane('digest', '--platform', 'linux/arm64', image)).trim()
    expect((await site.manifest('library/crane', '1')).body.manifests?.[1]?.digest).toBe(arm)
    for (const [name, folder] of [
      [image, 'by-tag'],
      [`${site.host}/library/crane@${digest}`, 'by-digest'],
    ] as const) {
      await crane('pull', '--format', 'oci', name, join(site.folder, folder))
      const blob = join(site.folder, folder, 'blobs/sha256', digest.slice('sha256:'.length))
      expect(readFileSync(blob)).toEqual(readFileSync(blob.replace(folder, 'index')))
    }
    await crane('validate', '--remote', image)
  })

  it('appends a layer, zstd included, and changes the configuration', async () => {
    const file = join(site.folder, 'more.tgz')
    writeFileSync(file, gzipSync(await tarOf((root) => writeFileSync(join(root, 'more'), randomBytes(1000)))))
    await crane('append', '--platform', 'linux/amd64', '-b', image, '-f', file, '-t', `${site.host}/library/crane:more`)
    expect((await site.manifest('library/crane', 'more')).body.layers).toHaveLength(3)
    await crane('mutate', '--label', 'a=b', `${site.host}/library/crane:more`, '-t', `${site.host}/library/crane:label`)
    expect(JSON.parse(await crane('config', `${site.host}/library/crane:label`))).toMatchObject({
      config: { Labels: { a: 'b' } },
    })
    await writeLayout(join(site.folder, 'zstd'), { compression: 'zstd' })
    await crane('push', join(site.folder, 'zstd'), `${site.host}/library/crane:zstd`)
    expect((await site.manifest('library/crane', 'zstd')).body.layers?.[0]?.mediaType).toMatch(/zstd$/)
    // `crane validate` reads gzip only.
    await crane('pull', '--format', 'oci', `${site.host}/library/crane:zstd`, join(site.folder, 'zstd-pulled'))
  })

  it('copies an index to another repository by mounting every blob', async () => {
    await crane('copy', image, `${site.host}/library/copies/crane:1`)
    expect((await site.manifest('library/copies/crane', '1')).digest).toBe(digest)
    await site.mounted('library/copies/crane', 5) // two images of two layers and a configuration; busybox is one blob
    expect(await site.uploads('library/copies/crane')).toEqual([])
    await crane('validate', '--remote', `${site.host}/library/copies/crane:1`)
  })

  it('joins images to an index', async () => {
    const parts = ['linux/amd64', 'linux/arm64'].map(async (platform) =>
      (await crane('digest', '--platform', platform, image)).trim(),
    )
    const [amd, arm] = await Promise.all(parts)
    const target = `${site.host}/library/crane:joined`
    await crane(
      'index',
      'append',
      '-m',
      `${site.host}/library/crane@${amd}`,
      '-m',
      `${site.host}/library/crane@${arm}`,
      '-t',
      target,
    )
    expect((await site.manifest('library/crane', 'joined')).body.manifests?.map((child) => child.digest)).toEqual([
      amd,
      arm,
    ])
  })

  it('lists more tags than a page holds, and repositories', async () => {
    const tags = await site.addTags('library/crane', '1', 1100)
    const listed = (await crane('ls', `${site.host}/library/crane`)).trim().split('\n')
    expect(listed).toEqual(expect.arrayContaining([...tags, '1', 'more', 'label', 'zstd', 'joined']))
    expect(listed).toHaveLength(1105)
    const pages = await site.accesses('pages', ({ url }) => url.startsWith('/v2/library/crane/tags/list?'), 2)
    expect(pages.map(({ status }) => status)).toEqual(pages.map(() => 200))
    expect((await crane('catalog', site.host)).trim().split('\n')).toEqual(['library/copies/crane', 'library/crane'])
  })

  it('deletes by tag and by digest, and nothing else', async () => {
    await crane('delete', `${site.host}/library/crane:more`)
    expect(await site.has('library/crane', 'more')).toBe(false)
    expect(await site.has('library/crane', 'label')).toBe(true)
    await crane('delete', `${site.host}/library/copies/crane@${digest}`)
    expect((await crane.try('digest', `${site.host}/library/copies/crane:1`)).output).toContain('404')
    expect((await crane('digest', image)).trim()).toBe(digest)
  })
})
