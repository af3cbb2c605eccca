import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { artifactDeps, deleteManifest, grant, projectPolicies, putManifest, type ArtifactDeps } from '@haven/artifacts'
import { Authority, type GrantFacts } from '@haven/identity'
import { digestOf, mediaTypes, parseReference, type Digest } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import type { Database, Sql } from '@haven/db'
import { ActorKind } from '@haven/proto/events'
import { BulkOperationSchema, type BulkOperation } from '@haven/proto/jobs'
import {
  failedItems,
  LeaseLost,
  listEffects,
  listFailures,
  startExecution,
  StopRequested,
  taskOf,
  type Json,
} from '@haven/queue'
import { MemoryStorage } from '@haven/storage'
import { statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import job from '../src/jobs/bulk-operation.ts'
import type { JobDeps } from '../src/job-deps.ts'

let database: TestDatabase
let artifacts: ArtifactDeps
let projects: ProjectFacts[] = []
let rights: Omit<GrantFacts, 'id'>[] = []
let readOnly = false
let executionId = 0

const principal = { kind: 'user', id: 7, name: 'ann' } as const
const shop = 1
const released = 2

const right = (resource: string, action: string, projectId = shop, repository: string | null = null) => ({
  principalKind: 'user' as const,
  roleId: null,
  resource,
  action,
  effect: 'allow' as const,
  nodeKind: repository === null ? ('project' as const) : ('repository' as const),
  projectId,
  repository,
  tagPattern: null,
})

beforeAll(async () => {
  database = await testDatabase()
  const { prisma } = database.db
  const { id: ownerId } = await prisma.user.create({ data: { username: 'ann', usernameKey: 'ann' } })
  for (const name of ['shop', 'released']) await prisma.project.create({ data: { name, nameKey: name, ownerId } })
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const { prisma } = database.db
  await prisma.$executeRaw`truncate artifacts.repositories, artifacts.blobs, projects.labels, jobs.executions, events.outbox restart identity cascade`
  projects = [shop, released].map((id) => ({
    id,
    name: id === shop ? 'shop' : 'released',
    public: false,
    createdAt: new Date(0),
    updatedAt: new Date(0),
    ownerId: 1,
    registryId: null,
    metadata: {},
    immutableRules: [],
    quotaBytes: -1,
  }))
  rights = ['delete', 'read', 'create'].flatMap((action) => [right('artifact', action), right('artifact', action, 2)])
  for (const resource of ['artifact-label', 'tag']) rights.push(right(resource, 'create'), right(resource, 'delete'))
  readOnly = false
  artifacts = artifactDeps({
    db: database.db,
    storage: new MemoryStorage(),
    policies: { ...projectPolicies, readOnly: () => readOnly },
  })
  const execution = { vendorType: 'BULK_OPERATION', vendorId: 7, trigger: 'MANUAL' as const, tasks: [] }
  executionId = (await database.db.transaction((tx) => startExecution(tx, execution))).id
})

const protectAll = (repository: string) => {
  const selector = (pattern: string, decoration: string) => ({ kind: 'doublestar', decoration, pattern })
  const rule = {
    tag_selectors: [selector('**', 'matches')],
    scope_selectors: { repository: [selector(repository, 'repoMatches')] },
  }
  return { id: 1, rule, protectOverwrite: true, protectDelete: true }
}

let made = 0
/** An index is the one manifest that needs no blob. */
async function push(
  repository: string,
  tag: string | null,
  children: readonly Digest[] = [],
  moreTags: readonly string[] = [],
): Promise<Digest> {
  const manifests = children.map((digest) => ({ mediaType: mediaTypes.ociIndex, digest, size: 100 }))
  const annotations = { 'test.number': String(made++) }
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests, annotations }))
  for (const one of [tag, ...moreTags]) await putBody(repository, one, body)
  return digestOf(body)
}
async function putBody(repository: string, tag: string | null, body: Buffer) {
  const to = grant('push', { project: projects[0]!, repository, principal, requestId: 'r', door: 'registry' })
  const reference = tag === null ? { digest: digestOf(body) } : parseReference(tag)!
  await putManifest(artifacts, to, { reference, mediaType: mediaTypes.ociIndex, body })
}

const manifests = async () => {
  const rows = await database.db.prisma.manifest.findMany({
    where: { deletedAt: null },
    select: { id: true, digest: true, repository: { select: { projectId: true, path: true } } },
    orderBy: { id: 'asc' },
  })
  return rows.map(({ id, digest, repository }) => ({ id, digest, ...repository }))
}
const digests = async (projectId = shop) =>
  (await manifests()).filter((one) => one.projectId === projectId).map(({ digest }) => digest)
const deletions = () => database.db.prisma.outboxEvent.count({ where: { type: 'haven.events.v1.ArtifactDeleted' } })
const idsOf = async (wanted: readonly Digest[]) =>
  (await manifests()).filter(({ digest }) => wanted.includes(digest as Digest)).map(({ id }) => id)

type Params = Partial<Exclude<MessageInitShape<typeof BulkOperationSchema>, BulkOperation>>
const every: Params = { selection: { case: 'matching', value: { repository: '', conditions: [] } } }
const chosen = async (wanted: readonly Digest[]) =>
  ({ selection: { case: 'chosen', value: { artifacts: await idsOf(wanted) } } }) as const

type Worker = {
  cursor?: Json
  /** Called before each artifact is saved as done. */
  onSave?: (cursor: { done: number }) => void
  /** Called wherever it may die: before and after each transaction and each other statement of the job. */
  at?: () => void
  hold?: () => void
  signal?: AbortSignal
}

const turnOver = new Error('the turn is over')

/** One worker's attempt, in as many turns as it takes. Answers where it is at the end. */
async function attempt(params: Params, worker: Worker = {}) {
  const log: string[] = []
  const say = (line: string) => void log.push(line)
  let cursor = worker.cursor ?? null
  let unsure: Json | undefined
  const at = () => worker.at?.()
  const transaction = async <T>(work: (tx: Sql) => Promise<T>): Promise<T> => {
    at()
    const value = await database.db.transaction(async (tx) => {
      unsure = undefined
      const result = await work(tx)
      at()
      return result
    })
    cursor = unsure ?? cursor
    at()
    return value
  }
  const db = Object.create(database.db, { transaction: { value: transaction } }) as Database
  const { parameters } = taskOf(BulkOperationSchema, job, {
    kind: 'delete',
    projectId: BigInt(shop),
    askedAt: timestampFromDate(new Date()),
    owner: { kind: ActorKind.USER, id: 7n, name: 'ann' },
    ...params,
  })
  const deps: Pick<JobDeps, 'db' | 'artifacts' | 'projects' | 'authorities'> = {
    db,
    artifacts,
    projects: { byId: async (id) => projects.find((project) => project.id === id) ?? null },
    authorities: {
      of: async () =>
        new Authority(principal, { active: true, grants: rights.map((one, id) => ({ ...one, id })) }, new Map()),
    },
  }
  const turn = () =>
    job.run({
      params: parameters,
      deps: deps as JobDeps,
      log: { debug: say, info: say, warn: say, error: say },
      signal: worker.signal ?? new AbortController().signal,
      executionId,
      jobId: 'a',
      attempt: 1,
      progress: () => undefined,
      attributes: async () => undefined,
      cursor,
      async saveCursor(next, tx) {
        worker.onSave?.(next as { done: number })
        if (tx) {
          unsure = next
          return
        }
        at()
        cursor = next
        at()
      },
      async hold() {
        worker.hold?.()
      },
      yieldTurn() {
        throw turnOver
      },
    })
  let failed: Error | null
  do {
    failed = await turn().then(
      () => null,
      (error: Error) => error,
    )
  } while (failed === turnOver)
  return { cursor: cursor as { done: number; failed: number; codes: Record<string, number> }, failed, log }
}

const failures = async () => (await listFailures(database.db, executionId, { page: 1, pageSize: 100 })).items
const progress = async () => {
  const where = { type: 'haven.events.v1.OperationProgressed' }
  const rows = await database.db.prisma.outboxEvent.findMany({ where, orderBy: { id: 'asc' } })
  return rows.map(({ payload }) => payload as { state: string; done?: number; failed?: number })
}

describe('an operation on many artifacts', () => {
  it('deletes what was chosen, an index before its children, and in the name of who asked', async () => {
    const child = await push('app', null)
    const index = await push('app', '1', [child])
    const stays = await push('app', '2')
    const { cursor, failed } = await attempt({ ...(await chosen([child, index])), total: 2, requestId: 'r-9' })
    expect([failed, cursor]).toEqual([null, expect.objectContaining({ done: 2, failed: 0, codes: {} })])
    expect(await digests()).toEqual([stays])
    const { payload } = (await database.db.prisma.outboxEvent.findFirst({
      where: { type: 'haven.events.v1.ArtifactDeleted' },
    }))!
    expect(payload).toMatchObject({
      header: { actor: { kind: 'ACTOR_KIND_USER', id: '7', name: 'ann' }, requestId: 'r-9' },
      door: 'DOOR_API',
    })
    expect((await progress()).map(({ state, done = 0 }) => [state, done])).toEqual([
      ['Running', 0],
      ['Success', 2],
    ])
  })

  it('takes what matches, more than a page of it, and nothing that was pushed later', async () => {
    const first = await push('b', 'x')
    for (let i = 0; i < 110; i++) await push('a', `v${i}`)
    const askedAt = timestampFromDate(new Date())
    await new Promise((resolve) => setTimeout(resolve, 5))
    const later = await push('a', 'later')
    const conditions = [{ field: 'tags', match: 'contains', value: 'v' }]
    const selection = { case: 'matching', value: { repository: 'a', conditions } } as const
    const { cursor } = await attempt({ selection, askedAt })
    expect(cursor).toMatchObject({ done: 110, failed: 0 })
    expect(await digests()).toEqual([first, later])
  })

  it('says of each artifact why it could not', async () => {
    projects[0] = { ...projects[0]!, immutableRules: [protectAll('kept')] }
    const protectedOne = await push('kept', '1')
    const child = await push('app', null)
    await push('app', '1', [child])
    const { cursor } = await attempt({ ...(await chosen([protectedOne, child])), total: 2 })
    expect(cursor).toMatchObject({
      done: 2,
      failed: 2,
      codes: { 'PRECONDITION immutable': 1, 'VIOLATE_FOREIGN_KEY_CONSTRAINT referenced': 1 },
    })
    expect(await failures()).toEqual([
      {
        item: `shop/app@${child}`,
        code: 'VIOLATE_FOREIGN_KEY_CONSTRAINT',
        reason: 'referenced',
        message: expect.stringContaining('index'),
      },
      {
        item: `shop/kept@${protectedOne}`,
        code: 'PRECONDITION',
        reason: 'immutable',
        message: expect.stringContaining('immutable'),
      },
    ])
  })

  it('asks for the right again for each artifact, also below a repository (R10, A13)', async () => {
    for (let i = 0; i < 4; i++) await push('app', `${i}`)
    const lost = await attempt(every, {
      onSave: ({ done }) => {
        if (done === 2) rights = [right('artifact', 'delete', shop, 'other')]
      },
    })
    expect(lost.cursor).toMatchObject({ done: 4, failed: 2, codes: { 'FORBIDDEN forbidden': 2 } })
    expect(await digests()).toHaveLength(2)
  })

  it.each<[string, Params, changes: string, count: number]>([
    ['a deletion', { kind: 'delete' }, 'ArtifactDeleted', 3],
    ['a label', { kind: 'label', labelId: 1 }, 'ArtifactLabelled', 3],
    ['two tags of each taken off', { kind: 'untag', tag: '*' }, 'TagDeleted', 6],
  ])(
    'killed at any point, goes on without doing anything twice or leaving anything out: %s (F23, I14)',
    async (...row) => {
      const [, params, type, count] = row
      await database.db.prisma.label.create({ data: { name: 'rc', scope: 'g', projectId: 0 } })
      const changes = () => database.db.prisma.outboxEvent.count({ where: { type: `haven.events.v1.${type}` } })
      let points = 0
      for (let killed = true; killed;) {
        const before = await changes()
        const repository = `p${++points}`
        for (let i = 0; i < 3; i++) await push(repository, `${i}`, [], [`again-${i}`])
        const selection = { case: 'matching' as const, value: { repository, conditions: [] } }
        const asked: Params = { ...params, selection }
        let reached = 0
        const dead = await attempt(asked, {
          at() {
            if (++reached === points) throw new LeaseLost('killed')
          },
        })
        killed = dead.failed !== null
        const { cursor, failed } = await attempt(asked, { cursor: dead.cursor })
        expect([points, failed, cursor.done, cursor.failed]).toEqual([points, null, 3, 0])
        expect([points, (await changes()) - before]).toEqual([points, count])
      }
      expect(points).toBeGreaterThan(3 * count)
      expect(await listEffects(database.db, executionId)).toHaveLength(params.kind === 'delete' ? 0 : count * points)
    },
  )

  it.each<Params>([{ kind: 'delete' }, { kind: 'label', labelId: 1 }, { kind: 'unlabel', labelId: 1 }])(
    'saves where it is once for each: %j',
    async (params) => {
      await database.db.prisma.label.create({ data: { name: 'rc', scope: 'g', projectId: 0 } })
      for (let i = 0; i < 3; i++) await push('app', `${i}`)
      const saved: number[] = []
      await attempt({ ...every, ...params }, { onSave: ({ done }) => void saved.push(done) })
      expect(saved).toEqual([0, 1, 2, 3])
    },
  )

  it('spares what was deleted and pushed again while its worker was dead', async () => {
    const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] }))
    const [a, b] = [await push('app', 'a'), await push('app', 'b')]
    await putBody('app', 'again', body)
    const params = { ...(await chosen([a, b, digestOf(body)])), askedAt: timestampFromDate(new Date()), total: 3 }
    const dead = await attempt(params, {
      onSave: ({ done }) => {
        if (done === 1) throw new LeaseLost('killed')
      },
    })
    const asOther = { project: projects[0]!, repository: 'app', principal, requestId: 'r', door: 'registry' as const }
    await deleteManifest(artifacts, grant('delete', asOther), digestOf(body))
    expect(await digests()).toEqual([a, b])
    await new Promise((resolve) => setTimeout(resolve, 5))
    await putBody('app', 'again', body)
    const next = await attempt(params, { cursor: dead.cursor })
    expect(next.cursor).toMatchObject({ done: 3, failed: 1, codes: { 'CONFLICT changed': 1 } })
    expect(await digests()).toEqual([digestOf(body)])
  })

  it('does nothing once its lease is lost (I14)', async () => {
    await push('app', '1')
    let holds = 0
    const zombie = await attempt(every, {
      hold: () => {
        if (++holds > 1) throw new LeaseLost('a')
      },
    })
    expect(zombie.failed).toBeInstanceOf(LeaseLost)
    expect(await digests()).toHaveLength(1)
  })

  it('stops when it is asked to, and says so', async () => {
    for (let i = 0; i < 3; i++) await push('app', `${i}`)
    const stop = new AbortController()
    const stopped = await attempt(every, {
      signal: stop.signal,
      onSave: ({ done }) => {
        if (done === 1) stop.abort(new StopRequested())
      },
    })
    expect(stopped.failed).toBeInstanceOf(StopRequested)
    expect(await digests()).toHaveLength(2)
    expect((await progress()).at(-1)).toMatchObject({ state: 'Stopped', done: 1 })
  })

  it('is tried again later while the installation is read-only', async () => {
    await push('app', '1')
    readOnly = true
    const { failed, cursor } = await attempt(every)
    expect([failed?.message, cursor.done]).toEqual([expect.stringContaining('read only'), 0])
    readOnly = false
    expect((await attempt(every, { cursor })).cursor).toMatchObject({ done: 1, failed: 0 })
  })

  it('does nothing in a dry run, and finds what would fail', async () => {
    projects[0] = { ...projects[0]!, immutableRules: [protectAll('kept')] }
    await push('kept', '1')
    await push('app', '1')
    const { cursor } = await attempt({ ...every, dryRun: true })
    const sample = [`shop/app@${(await digests())[1]}`]
    expect(cursor).toMatchObject({ done: 2, failed: 1, codes: { 'PRECONDITION immutable': 1 }, sample })
    expect([(await digests()).length, await deletions()]).toEqual([2, 0])
  })

  it('judges a hundred deletions of a dry run with a statement', async () => {
    projects[0] = { ...projects[0]!, immutableRules: [protectAll('kept')] }
    rights = [right('artifact', 'delete', shop, 'app'), right('artifact', 'delete', shop, 'kept')]
    for (let n = 0; n < 110; n++) await push('app', `t${n}`)
    for (const repository of ['kept', 'closed', 'kept']) await push(repository, String(made))
    const [first] = await manifests()
    await database.db.prisma.manifest.updateMany({
      where: { id: first!.id },
      data: { pushedAt: new Date(Date.now() + 60_000) },
    })
    // Chosen, since what was pushed later does not match.
    const selection = await chosen((await digests()) as Digest[])
    const texts = await statementsOf(async () => {
      const { cursor } = await attempt({ ...selection, dryRun: true })
      const codes = { 'PRECONDITION immutable': 2, 'FORBIDDEN forbidden': 1, 'CONFLICT changed': 1 }
      expect(cursor).toMatchObject({ done: 113, failed: 4, codes })
    })
    expect(texts.filter((text) => text.includes('held as materialized')).length).toBe(2)
    // Pages, states, what is told each second.
    expect(texts.length).toBeLessThan(50)
    expect((await failures()).map(({ reason }) => reason).toSorted()).toEqual([
      'changed',
      'forbidden',
      'immutable',
      'immutable',
    ])
    expect([(await digests()).length, await deletions()]).toEqual([113, 0])
  })

  it.each(['label', 'tag'])('keeps nothing of a dry run for an undo: %s', async (kind) => {
    await database.db.prisma.label.create({ data: { name: 'rc', scope: 'g', projectId: 0 } })
    await push('app', '1')
    const { cursor } = await attempt({ ...every, kind, labelId: 1, tag: 'x', dryRun: true })
    expect([cursor, await listEffects(database.db, executionId)]).toEqual([
      expect.objectContaining({ done: 1, failed: 0, effects: 0 }),
      [],
    ])
  })

  const tags = async () =>
    (await database.db.prisma.tag.findMany({ include: { manifest: true }, orderBy: { id: 'asc' } })).map(
      ({ name, manifest }) => [name, manifest.digest],
    )

  it("puts a tag on, once in a repository, and leaves one that is another artifact's", async () => {
    const [first, second] = [await push('a', '1'), await push('a', '2')]
    const other = await push('b', 'stable')
    const accessory = { digest: first, mediaType: mediaTypes.ociIndex, size: 100 }
    const hanging = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [], subject: accessory }
    const signature = Buffer.from(JSON.stringify(hanging))
    await putBody('a', null, signature)
    const { cursor } = await attempt({
      ...(await chosen([first, second, other, digestOf(signature)])),
      kind: 'tag',
      tag: 'stable',
    })
    expect(cursor).toMatchObject({
      done: 4,
      failed: 2,
      codes: { 'CONFLICT changed': 1, 'DENIED other': 1 },
      effects: 1,
    })
    expect(await tags()).toEqual([
      ['1', first],
      ['2', second],
      ['stable', other],
      ['stable', second],
    ])
    expect(await listEffects(database.db, executionId)).toEqual([
      { itemId: Number((await idsOf([second]))[0]), detail: 'stable' },
    ])
  })

  it('takes off the tags that match, or those that were chosen, unless a rule protects them', async () => {
    const [a, b] = [await push('a', '1', [], ['rc-1', 'rc-2']), await push('b', '1', [], ['rc-1'])]
    const [idOfA, idOfB] = [(await idsOf([a]))[0]!, (await idsOf([b]))[0]!]
    const one = await attempt({
      ...(await chosen([a])),
      kind: 'untag',
      tags: { [String(idOfA)]: { names: ['rc-2', 'gone'] } },
    })
    expect([one.cursor.failed, (await tags()).map(([name]) => name)]).toEqual([0, ['1', 'rc-1', '1', 'rc-1']])
    projects[0] = { ...projects[0]!, immutableRules: [protectAll('b')] }
    const all = await attempt({ ...every, kind: 'untag', tag: 'rc-*' })
    expect(all.cursor).toMatchObject({ done: 2, failed: 1, codes: { 'PRECONDITION immutable': 1 } })
    expect(await tags()).toEqual([
      ['1', a],
      ['1', b],
      ['rc-1', b],
    ])
    expect(new Set(await listEffects(database.db, executionId))).toEqual(
      new Set([
        { itemId: Number(idOfA), detail: 'rc-1' },
        { itemId: Number(idOfA), detail: 'rc-2' },
      ]),
    )
    expect(await failedItems(database.db, executionId)).toEqual([Number(idOfB)])
  })

  it('takes what a search finds in several projects, as far as its owner may', async () => {
    const here = await push('a', 'old')
    const kept = await push('a', 'new')
    await push('b', 'old')
    await attempt({ ...every, kind: 'copy', destination: { projectId: BigInt(released), repository: '' } })
    rights = [right('artifact', 'delete'), right('artifact', 'delete', released, 'a')]
    const search = 'tag:o* -repository:shop/b pushed:>-1h'
    const found = { case: 'found' as const, value: { search, labels: {} } }
    const { cursor } = await attempt({ projectId: 0n, projectIds: [1n, 2n], selection: found })
    expect(cursor).toMatchObject({ done: 3, failed: 1, codes: { 'FORBIDDEN forbidden': 1 } })
    expect((await failures()).map(({ item }) => item.split('@')[0])).toEqual(['released/b'])
    expect([(await digests()).includes(here), (await digests()).length]).toEqual([false, 2])
    expect(await digests(released)).toEqual(expect.arrayContaining([kept]))
  })

  it('puts a label on and takes it off; what is so already is done', async () => {
    const { id: labelId } = await database.db.prisma.label.create({ data: { name: 'rc', scope: 'g', projectId: 0 } })
    const first = await push('app', '1')
    await push('app', '2')
    const labelled = () => database.db.prisma.artifactLabel.count({ where: { labelId } })
    const one = await attempt({ ...(await chosen([first])), kind: 'label', labelId })
    expect([one.cursor, await labelled()]).toEqual([expect.objectContaining({ done: 1, failed: 0 }), 1])
    const rehearsal = await attempt({ ...every, kind: 'label', labelId, dryRun: true })
    expect([rehearsal.cursor, await labelled()]).toEqual([expect.objectContaining({ done: 2, failed: 0 }), 1])
    const all = await attempt({ ...every, kind: 'label', labelId })
    expect([all.cursor, await labelled()]).toEqual([expect.objectContaining({ done: 2, failed: 0 }), 2])
    const none = await attempt({ ...every, kind: 'unlabel', labelId })
    expect([none.cursor, await labelled()]).toEqual([expect.objectContaining({ done: 2, failed: 0 }), 0])
    const unknown = await attempt({ ...every, kind: 'label', labelId: 999 })
    expect(unknown.cursor).toMatchObject({ done: 2, failed: 2, codes: { 'NOT_FOUND gone': 2 } })
  })

  it('copies to where its owner may push, and may be repeated', async () => {
    const [a, b] = [await push('a', '1'), await push('b/c', '1')]
    const destination = { projectId: BigInt(released), repository: '' }
    expect((await attempt({ ...every, kind: 'copy', destination, dryRun: true })).cursor).toMatchObject({ failed: 0 })
    expect(await digests(released)).toEqual([])
    for (let i = 0; i < 2; i++) {
      const { cursor } = await attempt({ ...every, kind: 'copy', destination })
      expect(cursor).toMatchObject({ done: 2, failed: 0 })
      expect((await digests(released)).toSorted()).toEqual([a, b].toSorted())
    }
    rights = [right('artifact', 'read')]
    const refused = await attempt({ ...every, kind: 'copy', destination })
    expect(refused.cursor).toMatchObject({ done: 2, failed: 2, codes: { 'FORBIDDEN forbidden': 2 } })
    projects = projects.filter(({ id }) => id === shop)
    const nowhere = await attempt({ ...every, kind: 'copy', destination })
    expect(nowhere.cursor).toMatchObject({ done: 2, failed: 2, codes: { 'NOT_FOUND gone': 2 } })
  })

  it('counts names of nothing as failed from the beginning', async () => {
    const only = await push('app', '1')
    const { cursor } = await attempt({ ...(await chosen([only])), total: 3, unknown: 2 })
    expect(cursor).toMatchObject({ done: 3, failed: 2, codes: { 'NOT_FOUND gone': 2 } })
  })
})
