import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Statement, type Tx } from '@haven/db'
import { digestOf, parseTag } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { roundTripsOf, rowsRead, testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  deleteManifest,
  deleteTag,
  grant,
  judgeDeletions,
  previewDeletion,
  type ArtifactDeps,
} from './index.ts'
import { buryManifests, findDoomed, lockDoomed, orphansOf } from './store/deletions.ts'

let database: TestDatabase
let deps: ArtifactDeps
const ARTIFACTS = 20_000

const digest = (n: number) => digestOf(Buffer.from(String(n)))
const project: ProjectFacts = {
  id: 1,
  name: 'library',
  public: false,
  createdAt: new Date(0),
  updatedAt: new Date(0),
  ownerId: 1,
  registryId: null,
  metadata: {},
  immutableRules: [],
  quotaBytes: -1,
}
const deleting = (repository: string) =>
  grant('delete', {
    project,
    repository,
    principal: { kind: 'user', id: 1, name: 'ann' },
    requestId: 'r',
    door: 'api',
  })

const run = (sql: string, values: unknown[] = []) =>
  database.db.writes.rows(statement<{ id: string }>(digestOf(Buffer.from(sql)).slice(-32), sql), values)

// r1 has images of a tag each; r2 indexes of two images each, and a signature of every index.
beforeAll(async () => {
  database = await testDatabase()
  deps = artifactDeps({ db: database.db, storage: new MemoryStorage() })
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  await run(`insert into artifacts.repositories (project_id, path) select 1, 'r' || n from generate_series(1, 3000) n`)
  const manifests = (kind: string, path: string, first: number, last: number, subject = 'null') =>
    run(`
      insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, subject_digest)
      select r.id, 'sha256:' || encode(sha256(convert_to(n::text, 'UTF8')), 'hex'), '', '${kind}', 'IMAGE', '', 0, 0, ${subject}
        from artifacts.repositories r, generate_series(${first}, ${last}) n where r.path = '${path}'`)
  await manifests('image', 'r1', 1, ARTIFACTS)
  await manifests('index', 'r2', 1, 1_000)
  await manifests('image', 'r2', 10_001, 12_000)
  await manifests(
    'image',
    'r2',
    20_001,
    21_000,
    `'sha256:' || encode(sha256(convert_to((n - 20000)::text, 'UTF8')), 'hex')`,
  )
  await run(`
    insert into artifacts.tags (repository_id, name, manifest_id)
    select m.repository_id, 't' || m.id, m.id from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id where r.path = 'r1'`)
  await run(`
    insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
    select m.id, c, m.repository_id, 'child', 'sha256:' || encode(sha256(convert_to((10000 + 2 * n + c)::text, 'UTF8')), 'hex'), '', 0
      from generate_series(1, 1000) n cross join generate_series(-1, 0) c
      join artifacts.manifests m on m.digest = 'sha256:' || encode(sha256(convert_to(n::text, 'UTF8')), 'hex')
      join artifacts.repositories r on r.id = m.repository_id and r.path = 'r2'`)
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const inTheTransaction = (trips: readonly (readonly string[])[]) => trips.map((trip) => trip.length)

describe('deleteManifest', () => {
  it('asks twice: what goes, under its locks; to write it, and who has to hear of it', async () => {
    await deleteManifest(deps, deleting('r1'), digest(1))
    const trips = await roundTripsOf(() => deleteManifest(deps, deleting('r1'), digest(2)))
    // Begin, lock, find; bury, tell, commit, what others remember.
    expect(inTheTransaction(trips)).toEqual([3, 4])
    const gone = await database.db.prisma.manifest.findMany({ where: { deletedAt: { not: null } } })
    expect(new Set(gone.map((one) => one.digest))).toEqual(new Set([digest(1), digest(2)]))
    expect(await database.db.prisma.tagHistory.count()).toBe(2)
  })

  it('asks twice more for the children of an index, whatever hangs on it', async () => {
    const trips = await roundTripsOf(() => deleteManifest(deps, deleting('r2'), digest(1)))
    // Orphans; lock, find, and orphans again.
    expect(inTheTransaction(trips)).toEqual([3, 1, 3, 4])
    const gone = await database.db.prisma.manifest.findMany({
      where: { deletedAt: { not: null }, repository: { path: 'r2' } },
      orderBy: { id: 'asc' },
    })
    expect(gone.map((one) => [one.digest, one.deletedReason])).toEqual([
      [digest(1), 'deleted'],
      [digest(10_001), `its index went: ${digest(1)} was deleted`],
      [digest(10_002), `its index went: ${digest(1)} was deleted`],
      [digest(20_001), `its subject went: ${digest(1)} was deleted`],
    ])
  })

  it('asks four times for a tag', async () => {
    const tags = await database.db.prisma.tag.findMany({ where: { manifest: { digest: digest(3) } } })
    const trips = await roundTripsOf(() => deleteTag(deps, deleting('r1'), parseTag(tags[0]!.name)!))
    // The repository; begin, lock; remove; tell, commit, what others remember.
    expect(inTheTransaction(trips)).toEqual([1, 2, 1, 3])
    expect(await database.db.prisma.tagHistory.findFirst({ where: { tag: tags[0]!.name } })).toMatchObject({
      fromDigest: digest(3),
      toDigest: null,
      actor: 'ann',
    })
  })

  it('writes nothing when it is refused', async () => {
    const trips = await roundTripsOf(async () => {
      await expect(deleteManifest(deps, deleting('r2'), digest(10_003))).rejects.toThrow('is an index of it')
    })
    expect(trips.at(-1)).toEqual(['rollback'])
    expect(inTheTransaction(trips)).toEqual([3, 1])
  })
})

describe('judging deletions', () => {
  it('takes one statement for a hundred, and two more for each level of indexes', async () => {
    const images = Array.from({ length: 100 }, (_, n) => ({ grant: deleting('r1'), digest: digest(100 + n) }))
    expect((await roundTripsOf(() => judgeDeletions(deps, images))).length).toBe(1)
    const mixed = images.map((one, n) => (n % 2 === 0 ? one : { grant: deleting('r2'), digest: digest(n + 2) }))
    expect((await roundTripsOf(() => judgeDeletions(deps, mixed))).length).toBe(3)
  })

  it('says of each what its deletion would, as if it went alone', async () => {
    const immutable = (_grant: unknown, tag: string) => ({ allowed: tag !== 'kept', reasons: [{ message: 'a rule' }] })
    const ruled = artifactDeps({
      db: database.db,
      storage: new MemoryStorage(),
      policies: { immutability: immutable },
    })
    // The tags of a signature and of a child that goes with its index; of the child of another, which stays for it.
    await run(`
      insert into artifacts.tags (repository_id, name, manifest_id)
      select m.repository_id, 'kept', m.id from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id and r.path = 'r2'
       where m.digest = '${digest(20_500)}'`)
    const asked = [
      { grant: deleting('r1'), digest: digest(300) },
      { grant: deleting('r2'), digest: digest(500) },
      { grant: deleting('r2'), digest: digest(501) },
      { grant: deleting('r2'), digest: digest(11_000) },
      { grant: deleting('r2'), digest: digest(300_000) },
      { grant: deleting('nowhere'), digest: digest(300) },
    ]
    const verdicts = await judgeDeletions(ruled, asked)
    expect(verdicts.map((problem) => problem?.kind.harbor ?? null)).toEqual([
      null,
      'PRECONDITION',
      null,
      'VIOLATE_FOREIGN_KEY_CONSTRAINT',
      'NOT_FOUND',
      'NOT_FOUND',
    ])
    for (const [i, { grant: by, digest: of }] of asked.entries()) {
      const done = await deleteManifest(ruled, by, of).then(
        () => null,
        (error: Error) => error.message,
      )
      const verdict = verdicts[i] ?? null
      if (verdict?.status === 404) expect(done).not.toBeNull()
      else expect(done).toBe(verdict?.message ?? null)
      if (verdict?.status === 412) expect((await previewDeletion(ruled, by, of)).blockers).toHaveLength(1)
    }
  })
})

describe.each(['that nobody has analyzed', 'as they were analyzed'])('a deletion among many artifacts, %s', (state) => {
  beforeAll(async () => {
    if (state === 'as they were analyzed') await run('analyze')
  })
  const reads = async (ask: (tx: Tx) => Promise<unknown>) =>
    (await rowsRead(database.db, ask as Parameters<typeof rowsRead>[1])).at(-1)!

  it('reads what goes and next to nothing else', async () => {
    const image = { projectId: 1, path: 'r1', digests: [digest(1_000)], going: [] }
    const index = { projectId: 1, path: 'r2', digests: [digest(700)], going: [] }
    expect(await reads((tx) => lockDoomed(tx, [image], 1_001))).toBeLessThan(25)
    expect(await reads((tx) => findDoomed(tx, [image, index], 2_002))).toBeLessThan(40)
    const { id } = (await database.db.prisma.manifest.findFirst({
      where: { digest: digest(700), repository: { path: 'r2' } },
    }))!
    const going = [{ ...index, going: [String(id)] }]
    const orphans = await orphansOf(database.db.writes, going, [[String(id)]], 10)
    expect(orphans.map(({ digest: of }) => of).toSorted()).toEqual([digest(11_399), digest(11_400)].toSorted())
    expect(await reads((tx) => orphansOf(tx, going, [[String(id)]], 10))).toBeLessThan(25)
  })

  it('writes what goes without a look at what stays', async () => {
    const ids = await run(`
      select m.id from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id and r.path = 'r1'
       where m.deleted_at is null order by m.id desc limit 2`)
    const read = await reads(async (tx) => {
      const asked: Promise<unknown>[] = []
      const now = { ...tx, last: (one: Statement<object>, row: readonly unknown[]) => asked.push(tx.rows(one, row)) }
      const manifests = ids.map(({ id }) => ({ id, reason: 'deleted' }))
      buryManifests(now, manifests, { actor: 'ann', door: 'api', requestId: 'r', tombstoneSeconds: 0 })
      await Promise.all(asked)
    })
    expect(read).toBeLessThan(30)
  })
})
