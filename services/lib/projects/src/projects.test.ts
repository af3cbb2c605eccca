import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { createProject, ensureLibrary, type NewProject } from './create-project.ts'
import { ProjectDirectory } from './directory.ts'
import { charge, foldQuotas, usage } from './quotas.ts'

let database: TestDatabase
let directory: ProjectDirectory
let now = 0
beforeAll(async () => {
  database = await testDatabase()
  directory = new ProjectDirectory(database.db, { clock: () => now })
})
afterAll(async () => {
  directory[Symbol.dispose]()
  await database[Symbol.asyncDispose]()
})

const deps = () => ({ db: database.db, directory })
const create = (input: Partial<NewProject> & { name: string }) =>
  createProject(deps(), { principal: { kind: 'user', id: 1, name: 'admin' } }, { ownerId: 1, ...input })

describe('ensureLibrary', () => {
  it('makes the public project once, however many replicas start', async () => {
    await Promise.all([1, 2, 3].map(() => ensureLibrary(deps(), { ownerId: 1 })))
    expect(await directory.byName('library')).toMatchObject({ id: 1, public: true, ownerId: 1, registryId: null })
    expect(await database.db.prisma.project.count()).toBe(1)
  })
})

describe('createProject', () => {
  it('is private, unlimited and announced unless told otherwise', async () => {
    const { id } = await create({ name: 'plain' })
    expect(await directory.byId(id)).toMatchObject({ name: 'plain', public: false, metadata: { public: 'false' } })
    expect(await usage(database.db.reads, id)).toEqual({ hardBytes: -1, usedBytes: 0 })
    const event = await database.db.prisma.outboxEvent.findFirst({ where: { projectId: id } })
    expect(event).toMatchObject({
      type: 'haven.events.v1.ProjectCreated',
      payload: { project: { id: String(id), name: 'plain' }, header: { actor: { name: 'admin' } } },
    })
  })

  it.each(['OrcUpper', 'a b', 'a..b', 'a-', 'a/b', 'a+b', 'a__b', 'a----b', 'ä'])(
    'refuses the name %s',
    async (name) => {
      await expect(create({ name })).rejects.toThrow('project name is not in lower case or contains illegal characters')
    },
  )

  it.each(['', 'a'.repeat(256)])('refuses a name of a length that cannot be', async (name) => {
    await expect(create({ name })).rejects.toThrow('illegal in length')
  })

  it.each(['o', '20240', 'a_b.c-d', 'a'.repeat(255)])('accepts the name %s', async (name) => {
    expect(await create({ name })).toMatchObject({ name })
  })

  it('refuses a name that is taken, and changes nothing', async () => {
    await create({ name: 'taken' })
    const before = await database.db.prisma.outboxEvent.count()
    await expect(create({ name: 'taken' })).rejects.toThrow('The project named taken already exists')
    expect(await database.db.prisma.outboxEvent.count()).toBe(before)
  })

  it.each([
    [{ public: 'maybe' }, "metadata.public should only be 'true' or 'false', but got: 'maybe'"],
    [{ severity: 'huge' }, 'metadata.severity'],
    [{ retention_id: '7' }, 'retention_id'],
  ])('refuses the metadata %j with the name of the field', async (metadata, message) => {
    await expect(create({ name: 'nonsense', metadata })).rejects.toThrow(message)
    expect(await directory.byName('nonsense')).toBeNull()
  })

  it('ignores unknown and empty settings, and those of another kind of project', async () => {
    await create({
      name: 'lenient',
      metadata: { foo: 'x', severity: '', auto_scan: 'TRUE', proxy_speed_kb: '5', prevent_vul: null },
    })
    expect((await directory.byName('lenient'))?.metadata).toEqual({ public: 'false', auto_scan: 'true' })
  })

  it.each([-2, 1024 ** 5 + 1])('refuses a quota of %d bytes', async (quotaBytes) => {
    await expect(create({ name: 'sized', quotaBytes })).rejects.toThrow(`value=${quotaBytes}`)
  })

  it('refuses a vulnerability that is listed twice', async () => {
    const cveAllowlist = { items: ['CVE-1', 'CVE-1'], expiresAt: null }
    await expect(create({ name: 'cve', cveAllowlist })).rejects.toThrow('duplicate cve_id')
  })
})

describe('ProjectDirectory', () => {
  it('finds a project by a name that it had before', async () => {
    const { id } = await create({ name: 'renamed-now' })
    await database.db.prisma.projectAlias.create({ data: { name: 'renamed-before', projectId: id } })
    expect(await directory.byName('renamed-before')).toMatchObject({ id, name: 'renamed-now' })
  })

  it('hears of a change by another process, and is never older than five seconds', async () => {
    const other = new ProjectDirectory(database.db)
    const { id } = await create({ name: 'watched' })
    expect(await directory.byId(id)).toMatchObject({ public: false })
    await database.db.prisma.projectMetadata.updateMany({ where: { projectId: id }, data: { value: 'true' } })
    for (const until = Date.now() + 5_000; !(await directory.byId(id))?.public;) {
      if (Date.now() > until) throw new Error('the change was not heard')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    now += 5_001
    expect(await directory.byId(id)).toMatchObject({ public: true })
    other[Symbol.dispose]()
  })
})

describe('quotas', () => {
  it('lets exactly as many concurrent pushes in as fit', async () => {
    const { id } = await create({ name: 'limited', quotaBytes: 1000 })
    const pushes = await Promise.allSettled(
      Array.from({ length: 12 }, () => database.db.transaction((tx) => charge(tx, id, 300, 'push'))),
    )
    expect(pushes.filter((p) => p.status === 'fulfilled')).toHaveLength(3)
    const refused = pushes.find((p) => p.status === 'rejected')
    expect(problems.quotaExceeded.is(refused?.reason)).toBe(true)
    expect(await usage(database.db.reads, id)).toEqual({ hardBytes: 1000, usedBytes: 900 })
  })

  it('gives back, and folds without changing what is read', async () => {
    const { id } = await create({ name: 'folded' })
    for (const bytes of [500, 700, -200]) await database.db.transaction((tx) => charge(tx, id, bytes, 'test'))
    await foldQuotas(database.db)
    expect(await usage(database.db.reads, id)).toEqual({ hardBytes: -1, usedBytes: 1000 })
    expect(await database.db.prisma.quotaDelta.count()).toBe(0)
    expect(await database.db.prisma.quota.findUnique({ where: { projectId: id } })).toMatchObject({ usedBytes: 1000n })
  })

  it('forgets a charge whose transaction fails', async () => {
    const { id } = await create({ name: 'undone' })
    const failing = database.db.transaction(async (tx) => {
      await charge(tx, id, 5, 'push')
      throw new Error('push failed')
    })
    await expect(failing).rejects.toThrow('push failed')
    expect(await usage(database.db.reads, id)).toMatchObject({ usedBytes: 0 })
  })
})
