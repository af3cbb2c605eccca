import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startContainerd, type Containerd } from './containerd.ts'
import { containersTools } from './containers-tools.ts'
import { writeLayout } from './layout.ts'
import { startSite, type Site } from './site.ts'
import { must } from './tools.ts'

const lack = lacking('containerd', 'ctr', 'runc', 'skopeo', 'busybox')
const suite = lack ? describe.skip : describe
const as = ['--plain-http', '--user', `admin:${ADMIN_PASSWORD}`]

suite(titled('containerd', lack), () => {
  let site: Site
  let containerd: Containerd
  let image: string
  let digest: string

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 's3' })
    containerd = await startContainerd(site.folder)
    image = `${site.host}/library/ctr:1`
    const layout = join(site.folder, 'index')
    digest = (await writeLayout(layout, { architectures: ['amd64', 'arm64'], compression: 'zstd' })).digest
    await must('tar', ['-C', layout, '-cf', join(site.folder, 'index.tar'), '.'])
  }, 180_000)
  afterAll(async () => {
    await containerd?.[Symbol.asyncDispose]()
    await site?.[Symbol.asyncDispose]()
  }, 60_000)

  it('pushes an index of images with zstd layers, and pulls it by tag and by digest', async () => {
    const { ctr } = containerd
    await ctr(
      'images',
      'import',
      '--all-platforms',
      '--no-unpack',
      '--base-name',
      `${site.host}/library/ctr`,
      join(site.folder, 'index.tar'),
    )
    await ctr('images', 'push', ...as, image)
    const pushed = await site.manifest('library/ctr', '1')
    expect(pushed.digest).toBe(digest)
    expect(pushed.body.manifests).toHaveLength(2)
    for (const name of [image, `${site.host}/library/ctr@${digest}`]) {
      await ctr('images', 'rm', '--sync', image)
      await ctr('images', 'pull', ...as, '--all-platforms', name)
      expect(await ctr('images', 'ls', `name==${name}`)).toContain(digest)
    }
  })

  it('pulls as nobody from a public project, and runs what it pulled', async () => {
    const { ctr } = containerd
    const layout = join(site.folder, 'image')
    await writeLayout(layout, { says: 'hello from containerd' })
    const runnable = `${site.host}/library/runnable:1`
    const { skopeo } = containersTools(site.folder)
    await skopeo(
      'copy',
      '-q',
      '--dest-tls-verify=false',
      '--dest-creds',
      `admin:${ADMIN_PASSWORD}`,
      `oci:${layout}:1`,
      `docker://${runnable}`,
    )
    await ctr('images', 'pull', '--plain-http', runnable)
    expect((await ctr('run', '--rm', '--net-host', runnable, 'first')).trim()).toBe('hello from containerd')
  })

  it('gives another repository every blob by a mount', async () => {
    const { ctr } = containerd
    await ctr('images', 'pull', ...as, '--all-platforms', image)
    const copy = `${site.host}/library/copies/ctr:1`
    await ctr('images', 'tag', image, copy)
    await ctr('images', 'push', ...as, copy)
    expect((await site.manifest('library/copies/ctr', '1')).digest).toBe(digest)
    await site.mounted('library/copies/ctr', 5) // two images of two layers and a configuration; busybox is one blob
    const sent = await site.accesses(
      '',
      ({ method, url }) => method === 'PUT' && url.startsWith('/v2/library/copies/ctr/blobs/'),
      0,
    )
    expect(sent).toEqual([])
  })
})
