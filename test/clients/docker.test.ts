import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startDocker20, type DockerEngine } from './docker-engine.ts'
import { buildImage } from './images.ts'
import { PASSWORD, privateProject } from './people.ts'
import { startSite, type Site } from './site.ts'

const lack = lacking('dockerd', 'docker', 'busybox')
const suite = lack ? describe.skip : describe

suite(titled('docker 20.10', lack), () => {
  let site: Site
  let engine: DockerEngine
  let image: string

  const login = (user: string, password: string) =>
    engine.docker(['login', site.host, '-u', user, '--password-stdin'], { input: password })

  beforeAll(async () => {
    site = await startSite({ shape: 'single', store: 's3' })
    engine = await startDocker20()
    image = `${site.host}/library/hello:1`
    await buildImage(engine, image, 'hello from haven')
  }, 180_000)
  afterAll(async () => {
    await engine?.[Symbol.asyncDispose]()
    await site?.[Symbol.asyncDispose]()
  }, 120_000)

  it('a wrong password is said; then login, push, pull by tag and by digest, run', async () => {
    const wrong = await login('admin', 'Wrong-pass1')
    expect(wrong.code).not.toBe(0)
    expect(wrong.output).toMatch(/unauthorized/i)
    expect((await login('admin', ADMIN_PASSWORD)).code).toBe(0)
    await engine.mustDocker(['push', image])
    const { digest } = await site.manifest('library/hello', '1')
    for (const name of [image, `${site.host}/library/hello@${digest}`]) {
      await engine.mustDocker(['image', 'prune', '-af'])
      await engine.mustDocker(['pull', name])
      const said = await engine.mustDocker(['run', '--rm', '--network', 'host', name])
      expect(said.trim()).toBe('hello from haven')
    }
  })

  it('another repository gets the layers by a mount', async () => {
    const copy = `${site.host}/library/copies/hello:1`
    await engine.mustDocker(['pull', image])
    await engine.mustDocker(['tag', image, copy])
    expect(await engine.mustDocker(['push', copy])).toContain('Mounted from library/hello')
    await site.mounted('library/copies/hello', 2)
    expect(await site.uploads('library/copies/hello')).toHaveLength(1) // the configuration, which it never mounts
  })

  it('joins images to a list of Docker type and pulls the platform of the machine', async () => {
    const other = `${site.host}/library/hello:arm64`
    await buildImage(engine, other, 'hello from elsewhere')
    await engine.mustDocker(['push', other])
    const list = `${site.host}/library/hello:list`
    await engine.mustDocker(['manifest', 'create', '--insecure', list, image, other])
    await engine.mustDocker(['manifest', 'annotate', '--arch', 'arm64', list, other])
    await engine.mustDocker(['manifest', 'push', '--insecure', list])
    const { mediaType, body } = await site.manifest('library/hello', 'list')
    expect(mediaType).toBe('application/vnd.docker.distribution.manifest.list.v2+json')
    expect(body.manifests?.map((child) => child.platform?.architecture)).toEqual(['amd64', 'arm64'])
    await engine.mustDocker(['image', 'prune', '-af'])
    await engine.mustDocker(['pull', list])
    expect((await engine.mustDocker(['run', '--rm', '--network', 'host', list])).trim()).toBe('hello from haven')
  })

  it('anybody pulls from a public project, nobody pushes to it', async () => {
    await engine.mustDocker(['logout', site.host])
    await engine.mustDocker(['image', 'prune', '-af'])
    await engine.mustDocker(['pull', image])
    const refused = await engine.docker(['push', image])
    expect(refused.code).not.toBe(0)
    expect(refused.output).toMatch(/denied|unauthorized/)
  })

  it('a private project by role', async () => {
    await privateProject(site.haven.url, 'team', ['developer', 'guest'])
    const ours = `${site.host}/team/hello:1`
    await buildImage(engine, ours, 'hello from the team')
    const as = async (who: string, args: string[]) => {
      expect((await login(`team-${who}`, PASSWORD)).code).toBe(0)
      const outcome = await engine.docker(args)
      await engine.mustDocker(['logout', site.host])
      return outcome
    }
    const guestPush = await as('guest', ['push', ours])
    expect(guestPush.code).not.toBe(0)
    expect(guestPush.output).toContain('denied: requested access to the resource is denied')
    expect((await as('developer', ['push', ours])).output).toContain('digest: sha256:')
    expect((await as('guest', ['pull', ours])).code).toBe(0)
    const stranger = await as('stranger', ['pull', ours])
    expect(stranger.code).not.toBe(0)
    expect(stranger.output).toMatch(
      /pull access denied for .*team\/hello, repository does not exist or may require 'docker login'|unauthorized/,
    )
    const anonymous = await engine.docker(['pull', ours])
    expect(anonymous.code).not.toBe(0)
    expect(anonymous.output).toMatch(/pull access denied|unauthorized/)
  })
})
