import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { containersTools, type ContainersTools } from './containers-tools.ts'
import { writeLayout } from './layout.ts'
import { PASSWORD, privateProject } from './people.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('podman', 'buildah', 'skopeo', 'busybox')
const suite = lack ? describe.skip : describe
const plain = '--tls-verify=false'
const both = ['--src-tls-verify=false', '--dest-tls-verify=false']

suite(titled('podman, buildah and skopeo', lack), () => {
  let site: Site
  let tools: ContainersTools
  let context: string

  beforeAll(async () => {
    site = await startSite({ shape: 'split', store: 'files' })
    tools = containersTools(site.folder)
    context = join(site.folder, 'context')
    mkdirSync(context)
    copyFileSync(findTool('busybox')!, join(context, 'busybox'))
    writeFileSync(
      join(context, 'Containerfile'),
      'FROM scratch\nCOPY busybox /bin/busybox\nCOPY random /random\nCMD ["/bin/busybox", "echo", "hello from podman"]\n',
    )
  }, 180_000)
  afterAll(async () => {
    await tools?.tryTo('podman', 'rm', '-fa')
    await site?.[Symbol.asyncDispose]()
  }, 60_000)

  /** The same base, and a layer that nobody has. */
  const build = async (...args: string[]) => {
    writeFileSync(join(context, 'random'), randomBytes(20_000))
    await tools.podman('build', '-q', '--no-cache', ...args, context)
  }

  it('podman: a wrong password, then login, push, pull by tag and by digest, run', async () => {
    const login = ['login', plain, '-u', 'admin', '-p']
    const wrong = await tools.tryTo('podman', ...login, 'Wrong-pass1', site.host)
    expect(wrong.code).not.toBe(0)
    expect(wrong.output).toMatch(/invalid username\/password|unauthorized/)
    await tools.podman(...login, ADMIN_PASSWORD, site.host)

    const image = `${site.host}/library/podman:1`
    await build('-t', image)
    await tools.podman('push', '-q', plain, image)
    const { digest } = await site.manifest('library/podman', '1')
    for (const name of [image, `${site.host}/library/podman@${digest}`]) {
      await tools.podman('rmi', '-fa')
      await tools.podman('pull', '-q', plain, name)
      expect((await tools.podman('run', '--rm', '--network', 'host', name)).trim()).toBe('hello from podman')
    }
  }, 180_000)

  it('podman: another repository gets the layers by a mount', async () => {
    const copy = `${site.host}/library/copies/podman:1`
    await tools.podman('pull', '-q', plain, `${site.host}/library/podman:1`)
    await tools.podman('tag', `${site.host}/library/podman:1`, copy)
    await tools.podman('push', '-q', plain, copy)
    await site.mounted('library/copies/podman', 2)
    expect(await site.uploads('library/copies/podman')).toHaveLength(1) // the configuration, which it never mounts
  })

  it('podman: an index, layers with zstd, tags', async () => {
    await build('--platform', 'linux/amd64,linux/arm64', '--manifest', 'localhost/multi')
    const multi = `docker://${site.host}/library/multi:1`
    await tools.podman('manifest', 'push', '-q', '--all', plain, 'localhost/multi', multi)
    const { body } = await site.manifest('library/multi', '1')
    expect(body.manifests?.map((child) => child.platform?.architecture).toSorted()).toEqual(['amd64', 'arm64'])
    await tools.podman('pull', '-q', plain, '--arch', 'arm64', `${site.host}/library/multi:1`)

    await build('-t', 'localhost/zstd:1')
    const zstd = `${site.host}/library/zstd:1`
    await tools.podman('push', '-q', plain, '--compression-format', 'zstd', 'localhost/zstd:1', zstd)
    expect((await site.manifest('library/zstd', '1')).body.layers?.at(-1)?.mediaType).toMatch(/\+zstd$/)
    await tools.podman('rmi', '-fa')
    await tools.podman('pull', '-q', plain, zstd)
    expect((await tools.podman('run', '--rm', '--network', 'host', zstd)).trim()).toBe('hello from podman')

    const tags = await site.addTags('library/multi', '1', 30)
    const list = await tools.podman('search', plain, '--list-tags', '--limit', '100', `${site.host}/library/multi`)
    const rows = list.trim().split('\n').slice(1)
    expect(rows.map((row) => row.split(/ +/)[1])).toEqual(['1', ...tags])
  }, 180_000)

  it('buildah: from scratch to a pushed image, pulled by tag and by digest, copied by a mount', async () => {
    const image = `${site.host}/library/buildah:1`
    writeFileSync(join(context, 'random'), randomBytes(20_000))
    await tools.buildah('from', '--name', 'work', 'scratch')
    await tools.buildah('copy', 'work', join(context, 'random'), '/random')
    await tools.buildah('config', '--label', 'made=by-hand', 'work')
    await tools.buildah('commit', '-q', '--rm', 'work', image)
    await tools.buildah('push', '-q', plain, image)
    const { digest } = await site.manifest('library/buildah', '1')
    for (const name of [image, `${site.host}/library/buildah@${digest}`]) {
      await tools.buildah('rmi', '-fa')
      await tools.buildah('pull', '-q', plain, name)
      await tools.buildah('from', plain, '--name', 'again', name)
      expect(await tools.buildah('inspect', 'again')).toContain('"made": "by-hand"')
      await tools.buildah('rm', 'again')
    }
    await tools.buildah(
      'push',
      '-q',
      plain,
      `${site.host}/library/buildah@${digest}`,
      `docker://${site.host}/library/copies/buildah:1`,
    )
    await site.mounted('library/copies/buildah', 1)
  })

  it('skopeo: copies an index as it is, by mounts, in and out by tag and by digest', async () => {
    const folder = join(site.folder, 'index')
    const { digest } = await writeLayout(folder, { architectures: ['amd64', 'arm64'], compression: 'zstd' })
    const image = `docker://${site.host}/library/skopeo:1`
    await tools.skopeo('copy', '-q', '--all', '--preserve-digests', '--dest-tls-verify=false', `oci:${folder}:1`, image)
    const raw = readFileSync(join(folder, 'blobs/sha256', digest.slice('sha256:'.length)), 'utf8')
    expect(await tools.skopeo('inspect', '--raw', plain, image)).toBe(raw)
    for (const [name, to] of [
      [image, 'by-tag'],
      [`docker://${site.host}/library/skopeo@${digest}`, 'by-digest'],
    ] as const) {
      await tools.skopeo(
        'copy',
        '-q',
        '--all',
        '--preserve-digests',
        '--src-tls-verify=false',
        name,
        `oci:${join(site.folder, to)}:1`,
      )
      expect(readFileSync(join(site.folder, to, 'blobs/sha256', digest.slice('sha256:'.length)), 'utf8')).toBe(raw)
    }
    const copy = `docker://${site.host}/library/copies/skopeo:1`
    await tools.skopeo('copy', '-q', '--all', '--preserve-digests', ...both, image, copy)
    expect(await tools.skopeo('inspect', '--raw', plain, copy)).toBe(raw)
    await site.mounted('library/copies/skopeo', 3) // busybox and a random file for each platform
  })

  it('skopeo: converts to Docker types, syncs a repository, lists more tags than a page holds, deletes', async () => {
    const image = `docker://${site.host}/library/podman:1`
    await tools.skopeo('copy', '-q', '--format', 'v2s2', ...both, image, `docker://${site.host}/library/podman:docker`)
    const docker = 'application/vnd.docker.distribution.manifest.v2+json'
    expect((await site.manifest('library/podman', 'docker')).mediaType).toBe(docker)
    const sync = ['sync', '--src', 'docker', '--dest', 'docker', ...both]
    await tools.skopeo(...sync, `${site.host}/library/podman`, `${site.host}/library/synced`)
    const list = async (repository: string) =>
      (JSON.parse(await tools.skopeo('list-tags', plain, `docker://${site.host}/${repository}`)) as { Tags: string[] })
        .Tags
    expect(await list('library/synced/podman')).toEqual(['1', 'docker'])

    const tags = await site.addTags('library/podman', '1', 1100)
    expect(await list('library/podman')).toEqual(['1', 'docker', ...tags])

    await tools.skopeo('delete', plain, `docker://${site.host}/library/synced/podman:docker`)
    expect(await site.has('library/synced/podman', 'docker')).toBe(false)
    expect(await list('library/synced/podman')).toEqual(['1'])
  })

  it('a private project by role', async () => {
    await privateProject(site.haven.url, 'team', ['developer', 'guest'])
    const image = `docker://${site.host}/team/app:1`
    const from = `docker://${site.host}/library/skopeo:1`
    const as = (who: string) => `team-${who}:${PASSWORD}`
    const push = (who: string) => tools.tryTo('skopeo', 'copy', '-q', ...both, '--dest-creds', as(who), from, image)
    expect((await push('guest')).output).toMatch(/denied|unauthorized/)
    expect((await push('developer')).code).toBe(0)
    const look = (...who: string[]) => tools.tryTo('skopeo', 'inspect', '--raw', plain, ...who, image)
    expect((await look('--creds', as('guest'))).code).toBe(0)
    expect((await look('--creds', as('stranger'))).output).toMatch(/denied|unauthorized/)
    expect((await look('--no-creds')).output).toMatch(/denied|unauthorized/)
  })
})
