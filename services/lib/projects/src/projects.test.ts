import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import { Authorities, createUser, ensureAdmin, ensurePresets, roles, signInDeps } from '@haven/identity'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { createProject, ensureLibrary, type NewProject } from './create-project.ts'
import { deleteProject } from './delete-project.ts'
import { ProjectDirectory } from './directory.ts'
import { addMember, changeMember, findMember, listMembers, removeMember } from './members.ts'
import { listProjects, readProject, type ProjectQuery } from './list-projects.ts'
import { charge, foldQuotas, usage } from './quotas.ts'
import { addMetadatum, removeMetadatum, setMetadatum, updateProject } from './update-project.ts'

let database: TestDatabase
let directory: ProjectDirectory
let now = 0
beforeAll(async () => {
  database = await testDatabase()
  await ensurePresets(database.db)
  await ensureAdmin(database.db, 'Harbor12345')
  directory = new ProjectDirectory(database.db, { clock: () => now })
})
afterAll(async () => {
  directory[Symbol.dispose]()
  await database[Symbol.asyncDispose]()
})

const deps = () => ({ db: database.db, directory })
const admin = { principal: { kind: 'user' as const, id: 1, name: 'admin' } }
const create = (input: Partial<NewProject> & { name: string }) => createProject(deps(), admin, { ownerId: 1, ...input })

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

describe('updateProject', () => {
  it('changes what is named, leaves the rest, and says which fields changed but not to what', async () => {
    const project = await create({ name: 'updated', metadata: { auto_scan: 'true' } })
    await updateProject(deps(), admin, project, {
      metadata: { public: 'true', severity: 'HIGH', foo: 'x' },
      cveAllowlist: { items: ['CVE-2'], expiresAt: new Date(1_900_000_000_000) },
    })
    expect(await readProject(database.db, project.id)).toMatchObject({
      metadata: { public: 'true', auto_scan: 'true', severity: 'high' },
      allowlist: { items: ['CVE-2'], expiresAt: new Date(1_900_000_000_000) },
    })
    const event = await database.db.prisma.outboxEvent.findFirst({ orderBy: { id: 'desc' } })
    expect(event).toMatchObject({ projectId: project.id, payload: { fields: ['public', 'severity', 'cve_allowlist'] } })
    expect(JSON.stringify(event?.payload)).not.toContain('CVE-2')
  })

  it('refuses nonsense and a retention policy that is not its own, and changes nothing', async () => {
    const project = await create({ name: 'steady' })
    for (const metadata of [{ public: 'maybe' }, { public: 'true', severity: 'huge' }, { retention_id: '77' }]) {
      await expect(updateProject(deps(), admin, project, { metadata })).rejects.toMatchObject({ status: 400 })
    }
    expect((await readProject(database.db, project.id))?.metadata).toEqual({ public: 'false' })
  })

  it('is 404 for a project that is gone', async () => {
    await expect(updateProject(deps(), admin, { id: 99999, name: 'none' }, {})).rejects.toMatchObject({ status: 404 })
  })
})

describe('the metadata of a project', () => {
  it('is added once, set at will and removed without complaint', async () => {
    const project = await create({ name: 'meta' })
    await addMetadatum(deps(), admin, project, 'prevent_vul', 'true')
    await expect(addMetadatum(deps(), admin, project, 'prevent_vul', 'true')).rejects.toThrow(
      `metadata prevent_vul already exists for project ${project.id}`,
    )
    await setMetadatum(deps(), admin, project, 'prevent_vul', 'false')
    await setMetadatum(deps(), admin, project, 'severity', 'Low')
    await removeMetadatum(deps(), admin, project, 'prevent_vul')
    await removeMetadatum(deps(), admin, project, 'prevent_vul')
    await removeMetadatum(deps(), admin, project, 'foo')
    expect((await readProject(database.db, project.id))?.metadata).toEqual({ public: 'false', severity: 'low' })
  })

  it.each([
    ['foo', 'bar', 'invalid key: foo'],
    ['retention_id', '7', 'invalid key: retention_id'],
    ['proxy_speed_kb', '7', 'invalid key: proxy_speed_kb'],
    ['__proto__', 'true', 'invalid key: __proto__'],
    ['auto_scan', 'maybe', 'invalid value: maybe'],
  ])('refuses %s=%s', async (name, value, message) => {
    const project = { id: (await directory.byName('library'))?.id ?? 0, name: 'library' }
    await expect(addMetadatum(deps(), admin, project, name, value)).rejects.toThrow(message)
    await expect(setMetadatum(deps(), admin, project, name, value)).rejects.toThrow(message)
  })

  it('keeps the kind of a filter as long as its pattern', async () => {
    const project = await create({
      name: 'proxied',
      registryId: 1,
      metadata: { proxy_cache_filter_pattern: '^library/', proxy_cache_filter_kind: 'regex' },
    })
    await expect(removeMetadatum(deps(), admin, project, 'proxy_cache_filter_kind')).rejects.toMatchObject({
      status: 400,
    })
    await removeMetadatum(deps(), admin, project, 'proxy_cache_filter_pattern')
    await removeMetadatum(deps(), admin, project, 'proxy_cache_filter_kind')
    const broken = { proxy_cache_filter_pattern: '(', proxy_cache_filter_kind: 'regex' }
    await expect(create({ name: 'broken', registryId: 1, metadata: broken })).rejects.toThrow(
      'proxy_cache_filter_pattern',
    )
  })
})

describe('deleteProject', () => {
  const deleteDeps = (holds: boolean) => ({
    ...deps(),
    holdsRepositories: async () => holds,
  })

  it('is refused while there are repositories, and then nothing has changed', async () => {
    const project = await create({ name: 'full' })
    await expect(deleteProject(deleteDeps(true), admin, project)).rejects.toMatchObject({ status: 412 })
    expect(await directory.byName('full')).toMatchObject({ id: project.id })
  })

  it('frees the name for a new project with an id of its own', async () => {
    const project = await create({ name: 'again' })
    await deleteProject(deleteDeps(false), admin, project)
    expect(await directory.byId(project.id)).toBeNull()
    expect(await usage(database.db.reads, project.id)).toBeNull()
    await expect(deleteProject(deleteDeps(false), admin, project)).rejects.toMatchObject({ status: 404 })
    expect((await create({ name: 'again' })).id).not.toBe(project.id)
  })
})

describe('listProjects', () => {
  let ids: Record<string, number>
  beforeAll(async () => {
    const make = async (name: string, input: Partial<NewProject> = {}) => (await create({ name, ...input })).id
    ids = {
      a: await make('list-a', { ownerId: 7 }),
      b: await make('list-b', { metadata: { public: 'true' } }),
      c: await make('list-c_x'),
    }
  })
  const list = async (query: Partial<ProjectQuery>) => {
    const page = { number: 1, size: 0 }
    const { total, projects } = await listProjects(database.db, { visible: 'all', name: 'list-', page, ...query })
    return { total, names: projects.map((project) => project.name) }
  }

  it.each<[string, Partial<ProjectQuery>, string[]]>([
    ['everything to an administrator', {}, ['list-a', 'list-b', 'list-c_x']],
    ['only public ones to a stranger', { visible: { ids: [], public: true } }, ['list-b']],
    ['nothing', { visible: { ids: [], public: false } }, []],
    ['private ones', { public: false }, ['list-a', 'list-c_x']],
    ['those of an owner', { ownerIds: [7] }, ['list-a']],
    ['those of nobody', { ownerIds: [] }, []],
    ['a wildcard as itself', { name: 'C_' }, ['list-c_x']],
    [
      'in the order asked for',
      {
        sort: [
          { field: 'name', descending: true },
          { field: 'foo', descending: false },
        ],
      },
      ['list-c_x', 'list-b', 'list-a'],
    ],
    ['by an exact name', { conditions: [{ field: 'Name', match: 'exact', value: 'list-b' }] }, ['list-b']],
    [
      'by one of several names',
      { conditions: [{ field: 'name', match: 'in', values: ['list-b', 'list-a', 'x'] }] },
      ['list-a', 'list-b'],
    ],
    [
      'by a range of times',
      { conditions: [{ field: 'creation_time', match: 'range', min: new Date(0) }] },
      ['list-a', 'list-b', 'list-c_x'],
    ],
    [
      'whatever a key that does not exist says',
      { conditions: [{ field: 'nameKey; drop', match: 'exact', value: 'x' }] },
      ['list-a', 'list-b', 'list-c_x'],
    ],
  ])('shows %s', async (_what, query, names) => {
    expect(await list(query)).toEqual({ total: names.length, names })
  })

  it('shows members their own beside the public ones', async () => {
    expect(await list({ visible: { ids: [ids.a ?? 0], public: true } })).toEqual({
      total: 2,
      names: ['list-a', 'list-b'],
    })
  })

  it('counts all and shows a page', async () => {
    expect(await list({ page: { number: 2, size: 2 } })).toEqual({ total: 3, names: ['list-c_x'] })
    expect(await list({ page: { number: 9, size: 2 } })).toEqual({ total: 3, names: [] })
  })

  it('refuses a value that a field cannot have', async () => {
    await expect(list({ conditions: [{ field: 'owner_id', match: 'exact', value: 'x' }] })).rejects.toMatchObject({
      status: 400,
    })
  })
})

describe('members', () => {
  it('are told of when they come, change and go, and are nobody to another project', async () => {
    const { db } = database
    using authorities = new Authorities(db)
    using signIn = signInDeps(db)
    const people = { db, authorities, signIn }
    const user = await createUser(people, admin, {
      username: 'mia',
      email: 'mia@example.com',
      realname: 'Mia',
      password: 'Passw0rd',
    })
    const project = await create({ name: 'with-members' })
    const other = await create({ name: 'without-members' })
    const member = { kind: 'user' as const, memberId: user.id, name: 'mia' }
    const id = await addMember({ db }, admin, project, { ...member, roleId: roles.developer.id })
    await expect(addMember({ db }, admin, project, { ...member, roleId: 3 })).rejects.toMatchObject({ status: 409 })
    const list = (number: number, size: number, name?: string) =>
      listMembers({ db }, project, { page: { number, size }, ...(name !== undefined && { name }) })
    const [adminRow, mia] = [
      { name: 'admin', roleId: 1 },
      { id, name: 'mia', roleId: 2 },
    ]
    expect(await list(1, 10)).toMatchObject({ total: 2, members: [adminRow, mia] })
    expect(await list(2, 1)).toMatchObject({ total: 2, members: [mia] })
    expect(await list(1, 10, 'mia')).toMatchObject({ total: 2, members: [mia] })
    expect(await list(1, 10, 'mi')).toMatchObject({ total: 2, members: [] })

    await changeMember({ db }, admin, project, id, roles.maintainer.id)
    expect(await findMember({ db }, project, id)).toMatchObject({ roleId: 4 })
    for (const roleId of [0, -1, 9, 100, 1.5, 2 ** 40]) {
      await expect(changeMember({ db }, admin, project, id, roleId)).rejects.toMatchObject({ status: 400 })
    }
    for (const wrong of [0, -1, 2 ** 40])
      await expect(findMember({ db }, project, wrong)).rejects.toMatchObject({ status: 404 })
    await expect(findMember({ db }, other, id)).rejects.toMatchObject({ status: 404 })
    await expect(changeMember({ db }, admin, other, id, 1)).rejects.toMatchObject({ status: 404 })
    await expect(removeMember({ db }, admin, other, id)).rejects.toMatchObject({ status: 404 })
    expect(await findMember({ db }, project, id)).toMatchObject({ roleId: 4 })

    await removeMember({ db }, admin, project, id)
    await expect(removeMember({ db }, admin, project, id)).rejects.toMatchObject({ status: 404 })
    const events = await db.prisma.outboxEvent.findMany({ where: { projectId: project.id }, orderBy: { id: 'asc' } })
    expect(events.map((event) => event.type.split('.').at(-1))).toEqual([
      'ProjectCreated',
      'MemberAdded',
      'MemberUpdated',
      'MemberRemoved',
    ])
    expect(events[2]?.payload).toMatchObject({ previousRoleId: 2, membership: { memberName: 'mia', roleId: 4 } })
  })
})
