import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Database, type Tx } from '@haven/db'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { PullCounter } from './pull-counter.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
  await run(
    'projects',
    `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`,
  )
})
afterAll(async () => database[Symbol.asyncDispose]())

type Row = Record<string, unknown>
const run = (name: string, sql: string, values: unknown[] = []) =>
  database.db.writes.rows<Row>(statement(`test ${name}`, sql), values)
const fail = (error: Error) => {
  throw error
}

let made = 0
/** A repository with tagged manifests. */
async function repositoryOf(manifests: number) {
  const [repository] = await run(
    'repository',
    'insert into artifacts.repositories (project_id, path) values (1, $1) returning id',
    [`app${made++}`],
  )
  const repositoryId = Number(repository!.id)
  const rows = await run(
    'manifests',
    `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
     select $1, 'd' || n, '', 'image', '', 0, 0 from generate_series(1, $2::int) n returning id`,
    [repositoryId, manifests],
  )
  const ids = rows.map(({ id }) => String(id))
  const tags = await run(
    'tags',
    `insert into artifacts.tags (repository_id, name, manifest_id) select $1, 't' || id, id from unnest($2::bigint[]) id returning id, manifest_id`,
    [repositoryId, ids],
  )
  const tagIds = ids.map((id) => String(tags.find(({ manifest_id }) => String(manifest_id) === id)!.id))
  const pull = (n: number) => ({ repositoryId, id: ids[n]!, tagId: tagIds[n]! })
  return { repositoryId, ids, pull }
}
const pulledAt = async (id: string) =>
  (await database.db.prisma.lastPull.findUnique({ where: { manifestId: BigInt(id) } }))?.pulledAt.getTime()

describe('PullCounter', () => {
  it('counts each pull, and tells of the last one of a manifest and of a tag', async () => {
    const { repositoryId, ids, pull } = await repositoryOf(3)
    await using counter = new PullCounter(database.db, fail)
    for (let n = 0; n < 5; n++) counter.count(pull(0))
    counter.count({ ...pull(1), tagId: null })
    await counter.flush()
    const first = await pulledAt(ids[0]!)
    counter.count(pull(0))
    await counter.flush()
    const { pullCount } = await database.db.prisma.repository.findUniqueOrThrow({ where: { id: repositoryId } })
    expect(pullCount).toBe(7n)
    expect(await pulledAt(ids[0]!)).toBeGreaterThan(first!)
    expect([typeof (await pulledAt(ids[1]!)), await pulledAt(ids[2]!)]).toEqual(['number', undefined])
    const tags = await database.db.prisma.tag.findMany({ where: { repositoryId }, orderBy: { manifestId: 'asc' } })
    expect(tags.map((tag) => tag.pulledAt !== null)).toEqual([true, false, false])
  })

  it('writes when many different are counted, one write after the other', async () => {
    const writes: (() => void)[] = []
    const held = new Proxy(database.db, {
      get: (db, key) =>
        key === 'transaction'
          ? () => new Promise<void>((resolve) => void writes.push(resolve))
          : (Reflect.get(db, key, db) as unknown),
    })
    const counter = new PullCounter(held, fail)
    const count = async (from: number, to: number) => {
      for (let n = from; n < to; n++) counter.count({ repositoryId: 1, id: `${n}`, tagId: `${n}` })
      await new Promise(setImmediate)
      return writes.length
    }
    expect(await count(0, 249)).toBe(0)
    expect(await count(249, 250)).toBe(1)
    expect(await count(250, 600)).toBe(1)
    writes[0]!()
    await new Promise(setImmediate)
    expect(await count(600, 601)).toBe(2)
    writes[1]!()
    await counter.flush()
  })

  it('does not wait for pushes that hold what is pulled', async () => {
    const { ids, pull } = await repositoryOf(1)
    await using counter = new PullCounter(database.db, fail)
    await database.db.transaction(async (tx) => {
      await tx.rows(statement('test hold', 'select from artifacts.manifests where id = any($1::bigint[]) for update'), [
        ids,
      ])
      counter.count({ ...pull(0), tagId: null })
      await counter.flush()
      expect(typeof (await pulledAt(ids[0]!))).toBe('number')
    })
  })

  it('forgets the last pull and the labels of what is pushed again after it was deleted, and of what is gone, not of what is restored', async () => {
    const { ids, pull } = await repositoryOf(4)
    await using counter = new PullCounter(database.db, fail)
    for (let n = 0; n < 4; n++) counter.count(pull(n))
    await counter.flush()
    const { id: label } = await database.db.prisma.label.create({ data: { name: 'kept', scope: 'g', projectId: 0 } })
    await run(
      'label',
      'insert into artifacts.artifact_labels (label_id, manifest_id) select $1, unnest($2::bigint[])',
      [label, ids],
    )
    const [again, restored, removed] = ids
    await run('bury', 'update artifacts.manifests set deleted_at = now() where id = any($1::bigint[])', [
      [again, restored],
    ])
    await run('again', `update artifacts.manifests set deleted_at = null, pushed_at = now() where id = $1`, [again])
    await run('restore', `update artifacts.manifests set deleted_at = null where id = $1`, [restored])
    await run('untag', 'delete from artifacts.tags where manifest_id = $1', [removed])
    await run('remove', 'delete from artifacts.manifests where id = $1', [removed])
    const left = await Promise.all(ids.map(pulledAt))
    expect(left.map((time) => time !== undefined)).toEqual([false, true, false, true])
    const labelled = await database.db.prisma.artifactLabel.findMany({ where: { labelId: label } })
    expect(labelled.map(({ manifestId }) => Number(manifestId)).toSorted((a, b) => a - b)).toEqual(
      [ids[1], ids[3]].map(Number),
    )
  })

  it('keeps nothing of what went between its pull and the write', async () => {
    const { ids, pull } = await repositoryOf(3)
    await using counter = new PullCounter(database.db, fail)
    for (let n = 0; n < 3; n++) counter.count(pull(n))
    const [buried, removed] = ids
    await run('untag two', 'delete from artifacts.tags where manifest_id = any($1::bigint[])', [[buried, removed]])
    await run('bury one', 'update artifacts.manifests set deleted_at = now() where id = $1', [buried])
    await run('remove one', 'delete from artifacts.manifests where id = $1', [removed])
    await counter.flush()
    expect((await Promise.all(ids.map(pulledAt))).map((time) => typeof time)).toEqual([
      'undefined',
      'undefined',
      'number',
    ])
  })

  it('changes rows in their place when the same are pulled again: no index is written', async () => {
    const { pull } = await repositoryOf(20)
    const counted = statement<{ all: number; inPlace: number }>(
      'test changes',
      `select sum(n_tup_upd)::int as all, sum(n_tup_hot_upd)::int as "inPlace" from pg_stat_xact_user_tables
        where schemaname = 'artifacts' and relname in ('tags', 'last_pulls', 'manifests')`,
    )
    let changes: object | null = null
    const watched = Object.create(database.db, {
      transaction: {
        value: (work: (tx: Tx) => Promise<void>) =>
          database.db.transaction(async (tx) => {
            // A connection still has what earlier transactions on it did.
            const before = (await tx.one(counted, []))!
            await work(tx)
            const after = (await tx.one(counted, []))!
            changes = { all: after.all - before.all, inPlace: after.inPlace - before.inPlace }
          }),
      },
    }) as Database
    await using counter = new PullCounter(watched, fail)
    for (let turn = 0; turn < 2; turn++) {
      for (let n = 0; n < 20; n++) counter.count(pull(n))
      await counter.flush()
    }
    expect(changes).toEqual({ all: 40, inPlace: 40 })
  })
})
