import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { createProject } from '@haven/projects'
import { imageManifest, ociManifest, sha256, startRegistry, type Ask, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let image: Awaited<ReturnType<TestRegistry['pushImage']>>
const ask = (method: string, path: string, given?: Ask) => registry.ask(method, path, given)

beforeAll(async () => {
  registry = await startRegistry()
  image = await registry.pushImage('acme/app', 'v1')
  await registry.pushImage('open/app', 'v1', { as: 'admin' })
})
afterAll(() => registry[Symbol.asyncDispose]())

const statusOf = async (method: string, path: string, given?: Ask) => (await ask(method, path, given)).status

describe('who may do what', () => {
  it.each([
    // who, pull, push, delete in the private project acme
    ['gus', 200, 401, 401],
    ['dora', 200, 202, 401],
    ['mia', 200, 202, 404],
    ['admin', 200, 202, 404],
    ['stranger', 401, 401, 401],
    ['anonymous', 401, 401, 401],
    ['nobody', 401, 401, 401],
  ] as const)('%s', async (as, pull, push, remove) => {
    for (const how of as === 'anonymous' || as === 'nobody' ? [{}] : [{}, { basic: true }]) {
      const given = { as, ...how }
      expect(await statusOf('GET', '/v2/acme/app/manifests/v1', given)).toBe(pull)
      expect(await statusOf('HEAD', `/v2/acme/app/blobs/${image.layerDigest}`, given)).toBe(pull)
      expect(await statusOf('POST', '/v2/acme/app/blobs/uploads/', given)).toBe(push)
      expect(await statusOf('DELETE', `/v2/acme/app/manifests/${sha256('absent')}`, given)).toBe(remove)
    }
  })

  it('lets anybody with a token pull what is public, and nobody without one', async () => {
    expect(await statusOf('GET', '/v2/open/app/manifests/v1', { as: 'anonymous' })).toBe(200)
    expect(await statusOf('GET', '/v2/open/app/manifests/v1', { as: 'stranger' })).toBe(200)
    expect(await statusOf('GET', '/v2/open/app/manifests/v1', { as: 'nobody' })).toBe(401)
    expect(await statusOf('POST', '/v2/open/app/blobs/uploads/', { as: 'anonymous' })).toBe(401) // A42
    expect(await statusOf('GET', '/v2/', { as: 'anonymous' })).toBe(401)
  })

  it('refuses each way of writing to who may only pull, and changes nothing (A43)', async () => {
    const manifest = imageManifest(image.config, image.layer, { annotations: { evil: 'yes' } })
    const tries: [string, string, Ask?][] = [
      ['PUT', '/v2/acme/app/manifests/v1', { body: manifest, headers: { 'content-type': ociManifest } }],
      ['DELETE', '/v2/acme/app/manifests/v1'],
      ['DELETE', `/v2/acme/app/manifests/${image.digest}`],
      ['DELETE', `/v2/acme/app/blobs/${image.layerDigest}`],
      ['POST', '/v2/acme/app/blobs/uploads/'],
      ['POST', `/v2/acme/new/blobs/uploads/?mount=${image.layerDigest}&from=acme/app`],
      ['POST', `/v2/acme/app/blobs/uploads/?digest=${sha256('x')}`, { body: 'x' }],
    ]
    const before = await registry.db.prisma.tagHistory.count()
    for (const [method, path, given] of tries) {
      for (const how of [{}, { basic: true }, { scope: 'repository:acme/app:pull' }]) {
        const as = 'scope' in how ? 'mia' : 'gus'
        expect({ method, path, status: await statusOf(method, path, { ...given, ...how, as }) }).toEqual({
          method,
          path,
          status: 401,
        })
      }
    }
    expect((await ask('HEAD', '/v2/acme/app/manifests/v1')).headers.get('docker-content-digest')).toBe(image.digest)
    expect(await registry.db.prisma.tagHistory.count()).toBe(before)
  })

  it('does not let a token for one repository open another', async () => {
    const scope = 'repository:acme/other:pull,push,delete'
    expect(await statusOf('GET', '/v2/acme/app/manifests/v1', { scope })).toBe(401)
    expect(await statusOf('POST', '/v2/acme/app/blobs/uploads/', { scope })).toBe(401)
  })

  it('answers alike for what is hidden and what is not there', async () => {
    const seen = async (path: string, given: Ask) => {
      const { status, headers, body } = await ask('GET', path, given)
      const plain = (text: string | null) => text?.replaceAll(/secret|absent/g, 'NAME')
      return { status, challenge: plain(headers.get('www-authenticate')), body: plain(body.toString()) }
    }
    await registry.pushImage('other/secret', 'v1', { as: 'admin' })
    for (const given of [
      { as: 'stranger' },
      { as: 'stranger', basic: true },
      { as: 'anonymous' },
      { as: 'nobody' },
    ] as Ask[]) {
      const hidden = await seen('/v2/other/secret/manifests/v1', given)
      expect(await seen('/v2/other/absent/manifests/v1', given)).toEqual(hidden)
      const noProject = await seen('/v2/nowhere/absent/manifests/v1', given)
      expect(noProject.body?.replaceAll('nowhere', 'other')).toBe(hidden.body)
      expect(noProject.status).toBe(401)
    }
    const admin = await ask('GET', '/v2/nowhere/absent/manifests/v1', { as: 'admin' })
    expect({ status: admin.status, code: admin.json().errors[0].code }).toEqual({ status: 404, code: 'NAME_UNKNOWN' })
  })

  it('reads rights anew: a token outlives neither a grant nor its user', async () => {
    const path = '/v2/acme/app/manifests/v1'
    expect(await statusOf('GET', path, { as: 'dora' })).toBe(200)
    const dora = registry.principals.dora as { id: number }
    await registry.db.prisma.grant.deleteMany({ where: { principalKind: 'user', principalId: dora.id } })
    await until(async () => (await statusOf('GET', path, { as: 'dora' })) === 401)

    const gus = registry.principals.gus as { id: number }
    await registry.db.prisma.user.update({ where: { id: gus.id }, data: { disabledAt: new Date() } })
    await until(async () => (await statusOf('GET', path, { as: 'gus' })) === 401)
    expect(await statusOf('GET', '/v2/open/app/manifests/v1', { as: 'gus' })).toBe(401)
  })

  it('refuses a token of before the project was made again (A38)', async () => {
    const db = registry.db
    const admin = registry.principals.admin as { kind: 'user'; id: number; name: string }
    const make = async () => {
      const source = { principal: admin }
      await createProject({ db, directory: registry.projects }, source, { name: 'phoenix', ownerId: admin.id })
    }
    await make()
    await registry.pushImage('phoenix/app', 'v1', { as: 'admin' })
    expect(await statusOf('GET', '/v2/phoenix/app/manifests/v1', { as: 'admin' })).toBe(200)
    await db.prisma.project.updateMany({
      where: { nameKey: 'phoenix' },
      data: { nameKey: null, deletedAt: new Date() },
    })
    await make()
    const old = await ask('GET', '/v2/phoenix/app/manifests/v1', { as: 'admin' })
    expect(old.status).toBe(401)
    expect(
      await statusOf('POST', `/v2/acme/app/blobs/uploads/?mount=${image.layerDigest}&from=phoenix/app`, {
        scope: 'repository:acme/app:pull,push repository:phoenix/app:pull',
      }),
    ).toBe(202)
    expect(await statusOf('GET', '/v2/phoenix/app/manifests/v1', { as: 'admin', basic: true })).toBe(404)
  })

  it('refuses pushes to a project that only repeats another registry', async () => {
    const admin = registry.principals.admin as { kind: 'user'; id: number; name: string }
    await createProject(
      { db: registry.db, directory: registry.projects },
      { principal: admin },
      { name: 'mirror', ownerId: admin.id, registryId: 1 },
    )
    const refused = await ask('POST', '/v2/mirror/app/blobs/uploads/', { as: 'admin' })
    expect({ status: refused.status, error: refused.json().errors[0] }).toMatchObject({
      status: 403,
      error: { code: 'DENIED', message: 'can not push artifact to a proxy project: "mirror"' },
    })
  })
})

describe('paths that try to be others (A81)', () => {
  it.each([
    '/v2/acme/../other/app/manifests/v1',
    '/v2/acme/%2e%2e/other/manifests/v1',
    '/v2/acme%2fapp/manifests/v1',
    '/v2/acme/app%5c/manifests/v1',
    '/v2//acme/app/manifests/v1',
    '/v2/acme/app/manifests/..%2f..%2fv1',
    '/v2/ACME/app/manifests/v1',
    '/v2/acme/app/blobs/sha256:..%2f..%2fetc',
    '/v2/acme/app/blobs/uploads/../../x',
  ])('%s', async (path) => {
    // fetch would resolve the dots itself.
    const { hostname, port } = new URL(registry.urls[0]!)
    const { connect } = await import('node:net')
    const status = await new Promise<number>((resolve, reject) => {
      const socket = connect(Number(port), hostname, () =>
        socket.end(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
      )
      let text = ''
      socket.on('data', (data) => (text += data))
      socket.on('error', reject)
      socket.on('close', () => resolve(Number(text.split(' ')[1])))
    })
    expect([400, 404]).toContain(status)
  })

  it('finds repositories whose names hold the words of the API', async () => {
    for (const repository of ['acme/manifests/b', 'acme/blobs/uploads', 'acme/tags/list', 'acme/referrers']) {
      const pushed = await registry.pushImage(repository, 'v1')
      expect(pushed.put.status).toBe(201)
      expect((await ask('GET', `/v2/${repository}/tags/list`)).json()).toEqual({ name: repository, tags: ['v1'] })
    }
  })
})

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 6_000; !(await condition());) {
    if (Date.now() > deadline) throw new Error('it never came true')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
