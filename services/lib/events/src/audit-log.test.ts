import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { create, type DescMessage } from '@bufbuild/protobuf'
import { Prisma, statement, type Database } from '@haven/db'
import { OutboundClient } from '@haven/outbound'
import * as contract from '@haven/proto/events'
import {
  ArtifactPulledSchema,
  ChangeRefusedSchema,
  MemberAddedSchema,
  MemberKind,
  ProjectCreatedSchema,
  UserCreatedSchema,
  UserPasswordChangedSchema,
  UserSignedInSchema,
  UserSysadminChangedSchema,
} from '@haven/proto/events'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { auditLine } from './audit.ts'
import { AuditDays } from './audit-days.ts'
import { foldAuditNames } from './audit-names.ts'
import { ensureAuditPartitions } from './audit-partitions.ts'
import { OutboxDispatcher } from './dispatcher.ts'
import { emit, emitAll, type EventMessage, type EventSource } from './emit.ts'
import { auditEventTypes } from './event-types.ts'
import { auditMessage, AuditForwarder, checkForwardEndpoint, forgetUnsentAudit } from './forward-audit.ts'
import { listAudit, type AuditQuery } from './list-audit.ts'
import { maskAuditUser } from './mask-audit.ts'
import { countPurgeableAudit, purgeAudit } from './purge-audit.ts'
import { auditPolicy, auditWriter, type AuditPolicy } from './write-audit.ts'

let database: TestDatabase
const days = new AuditDays()
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.db.prisma.$executeRaw`truncate events.outbox, events.audit_entries, events.audit_forwards`
})

const ann: EventSource = { principal: { kind: 'user', id: 7, name: 'ann' }, requestId: 'r-1', address: '192.0.2.1' }
const root: EventSource = { principal: { kind: 'user', id: 1, name: 'admin' } }
const nobody: EventSource = { principal: { kind: 'anonymous' } }
const project = (id: number) => ({ id: BigInt(id), name: `p${id}` })

type Seed = { at: string; project?: number | null; type?: string; actor?: string; resource?: string; count?: number }
/** Entries as they would have been written, `count` of each, a second apart. */
async function seed(...entries: Seed[]): Promise<void> {
  for (const {
    at,
    project = 1,
    type = 'create_artifact',
    actor = 'ann',
    resource = 'p1/app:1',
    count = 1,
  } of entries) {
    const [operation, ...kind] = type.split('_')
    await database.db.prisma.$executeRaw`
      insert into events.audit_entries (occurred_at, project_id, operation, resource_type, resource, actor)
      select ${new Date(at)}::timestamptz + n * interval '1 second', ${project}::int, ${operation}, ${kind.join('_')}, ${resource}, ${actor}
        from generate_series(0, ${count - 1}) n`
  }
}
const list = (query: Partial<AuditQuery> = {}, db: Pick<Database, 'prisma'> = database.db) =>
  listAudit({ db, days }, { scope: 'all', page: { number: 1, size: 10 }, ...query })
const times = async (query: Partial<AuditQuery>) =>
  (await list(query)).entries.map((entry) => entry.occurredAt.toISOString())
const drain = (policy: Partial<AuditPolicy> = {}) => {
  const whole = { disabled: new Set<string>(), forward: false, skipDatabase: false, ...policy }
  const fail = (error: Error) => {
    throw error
  }
  return new OutboxDispatcher({ db: database.db, handlers: [auditWriter(async () => whole)], onFailure: fail }).drain()
}
/** The counts, and what they should be. */
async function requireTrueCounts() {
  for (const [each, table] of [
    ['month', 'audit_counts'],
    ['day', 'audit_day_counts'],
  ] as const) {
    const [column, counts] = [Prisma.raw(each), Prisma.raw(`events.${table}`)]
    const kept = await database.db.prisma.$queryRaw`
      select scope, ${column}::text as span, operation, resource_type, entries::int from ${counts} where entries <> 0 order by 1, 2, 3, 4`
    const real = await database.db.prisma.$queryRaw`
      select s.scope, date_trunc(${each}, e.occurred_at at time zone 'UTC')::date::text as span, e.operation, e.resource_type,
             count(*)::int as entries
        from events.audit_entries e cross join lateral (values (-1), (coalesce(e.project_id, 0))) s(scope)
       group by 1, 2, 3, 4 order by 1, 2, 3, 4`
    expect(kept).toEqual(real)
  }
  const named = await database.db.prisma.$queryRaw`
    select kind, name, month::text, sum(entries)::int as entries
      from (select kind, name, month, entries from events.audit_names
             union all select kind, name, month, entries from events.audit_name_deltas) n
     group by 1, 2, 3 having sum(entries) <> 0 order by 1, 2, 3`
  const lines = await database.db.prisma.$queryRaw`
    select s.kind, s.name, date_trunc('month', e.occurred_at at time zone 'UTC')::date::text as month, count(*)::int as entries
      from events.audit_entries e cross join lateral (values ('actor', e.actor), ('resource', e.resource)) s(kind, name)
     group by 1, 2, 3 order by 1, 2, 3`
  expect(named).toEqual(lines)
}

describe('listAudit', () => {
  it('shows pages newest first across months, without a gap or an overlap', async () => {
    await seed(
      { at: '2026-01-10T00:00:00Z', count: 7 },
      { at: '2026-03-01T00:00:00Z', count: 5 },
      { at: '2026-03-31T23:59:58Z', count: 4 }, // the last two of it in April
    )
    const all = await times({ page: { number: 1, size: 100 } })
    expect(all).toHaveLength(16)
    expect(all).toEqual(all.toSorted().reverse())
    for (const size of [1, 3, 4, 10]) {
      const pages: string[] = []
      for (let number = 1; number <= Math.ceil(16 / size); number++) {
        pages.push(...(await times({ page: { number, size } })))
      }
      expect(pages).toEqual(all)
    }
    const oldestFirst = [{ field: 'op_time', descending: false }]
    const upward: string[] = []
    for (const number of [1, 2, 3, 4]) upward.push(...(await times({ page: { number, size: 5 }, sort: oldestFirst })))
    expect(upward).toEqual(all.toReversed())
    expect(await list({ page: { number: 3, size: 10 } })).toEqual({ total: 16, entries: [] })
  })

  it('shows the same pages deep in a month as at its ends', async () => {
    await seed({ at: '2026-02-27T00:00:00Z', count: 30 }, { at: '2026-04-01T00:00:00Z', count: 30 })
    for (const day of ['01', '02', '07', '31']) await seed({ at: `2026-03-${day}T00:00:00Z`, count: 150 })
    await seed({ at: '2026-03-07T12:00:00Z', project: 2, type: 'pull_artifact', count: 300 })
    const kind = [{ field: 'operation', match: 'exact', value: 'create' } as const]
    const scopes = ['all', { projects: [1] }, { everyProjectBut: [1] }] as const
    for (const descending of [true, false]) {
      for (const scope of scopes) {
        for (const conditions of [[], kind]) {
          const query = { scope, conditions, sort: [{ field: 'op_time', descending }] }
          const ids = async (number: number, size: number) =>
            (await list({ ...query, page: { number, size } })).entries.map(({ id }) => id)
          const all = await ids(1, 1000)
          const pages: number[] = []
          for (let number = 1; number <= Math.ceil(all.length / 70); number++) pages.push(...(await ids(number, 70)))
          expect(pages).toEqual(all)
        }
      }
    }
  })

  it('counts what is found where a page is past its end', async () => {
    await seed({ at: '2026-01-10T00:00:00Z', count: 7 })
    const conditions = [{ field: 'username', match: 'contains', value: 'NN' } as const]
    expect(await list({ conditions, page: { number: 2, size: 10 } })).toEqual({ total: 7, entries: [] })
    expect(await list({ conditions: [{ ...conditions[0]!, value: 'x' }] })).toEqual({ total: 0, entries: [] })
  })

  it('shows every page in another order than that of time', async () => {
    for (const n of [1, 2, 3, 4]) await seed({ at: '2026-01-10T00:00:00Z', resource: `p1/${n % 3}`, count: 90 })
    for (const field of ['resource', 'id', 'op_result']) {
      const sort = [{ field, descending: false }]
      const all = (await list({ sort, page: { number: 1, size: 1000 } })).entries.map(({ id }) => id)
      const pages: number[] = []
      for (let number = 1; number <= 4; number++) {
        pages.push(...(await list({ sort, page: { number, size: 100 } })).entries.map(({ id }) => id))
      }
      expect([field, pages]).toEqual([field, all])
      expect(new Set(all).size).toBe(360)
    }
  })

  it('shows each of entries of one moment once', async () => {
    await database.db.prisma.$executeRaw`
      insert into events.audit_entries (occurred_at, operation, resource_type, resource, actor)
      select '2026-05-05', 'create', 'user', n::text, 'ann' from generate_series(1, 25) n`
    const seen: string[] = []
    for (const number of [1, 2, 3]) {
      seen.push(...(await list({ page: { number, size: 10 } })).entries.map((entry) => entry.resource))
    }
    expect(new Set(seen).size).toBe(25)
  })

  it('A31: counts and shows the lines of the projects that are seen, and no other', async () => {
    await seed(
      { at: '2026-01-01T00:00:00Z', project: 1, count: 2 },
      { at: '2026-01-02T00:00:00Z', project: 2, count: 3 },
      { at: '2026-02-01T00:00:00Z', project: 3, count: 4 },
      { at: '2026-02-02T00:00:00Z', project: null, type: 'login_user', count: 5 },
    )
    const seen = async (scope: AuditQuery['scope'], conditions: AuditQuery['conditions'] = []) => {
      const { total, entries } = await list({ scope, conditions, page: { number: 1, size: 100 } })
      expect(entries).toHaveLength(total)
      return Object.entries(Object.groupBy(entries, (entry) => String(entry.projectId)))
        .map(([id, own]) => `${id}:${own?.length}`)
        .sort()
    }
    const byActor = [{ field: 'username', match: 'exact', value: 'ann' }] as const
    for (const conditions of [[], byActor]) {
      expect(await seen('all', conditions)).toEqual(['1:2', '2:3', '3:4', 'null:5'])
      expect(await seen({ projects: [1, 3, 3] }, conditions)).toEqual(['1:2', '3:4'])
      expect(await seen({ projects: [] }, conditions)).toEqual([])
      expect(await seen({ everyProjectBut: [] }, conditions)).toEqual(['1:2', '2:3', '3:4'])
      expect(await seen({ everyProjectBut: [2] }, conditions)).toEqual(['1:2', '3:4'])
    }
  })

  it('finds by every field, and by several', async () => {
    await seed(
      { at: '2026-01-01T00:00:00Z', type: 'create_artifact', actor: 'ann', resource: 'p1/app:1' },
      { at: '2026-01-02T00:00:00Z', type: 'pull_artifact', actor: 'bob', resource: 'p1/100%:1' },
      { at: '2026-02-03T00:00:00Z', type: 'create_user', actor: 'ann', resource: 'carl', project: null },
    )
    const found = async (...conditions: NonNullable<AuditQuery['conditions']>) => {
      const { total, entries } = await list({ conditions })
      expect(entries).toHaveLength(total)
      return entries.map((entry) => entry.resource)
    }
    expect(await found({ field: 'operation', match: 'exact', value: 'create' })).toEqual(['carl', 'p1/app:1'])
    expect(await found({ field: 'Operation', match: 'in', values: ['pull', 'delete'] })).toEqual(['p1/100%:1'])
    expect(await found({ field: 'resource_type', match: 'contains', value: 'FACT' })).toHaveLength(2)
    expect(await found({ field: 'ResourceType', match: 'exact', value: 'user' })).toEqual(['carl'])
    expect(await found({ field: 'username', match: 'exact', value: 'bob' })).toEqual(['p1/100%:1'])
    expect(await found({ field: 'resource', match: 'contains', value: '0%' })).toEqual(['p1/100%:1'])
    expect(await found({ field: 'op_result', match: 'exact', value: 'false' })).toEqual([])
    expect(
      await found({
        field: 'op_time',
        match: 'range',
        min: new Date('2026-01-02T00:00:00Z'),
        max: new Date('2026-01-31T00:00:00Z'),
      }),
    ).toEqual(['p1/100%:1'])
    expect(
      await found(
        { field: 'operation', match: 'exact', value: 'create' },
        { field: 'username', match: 'exact', value: 'ann' },
        { field: 'nothing_like_it', match: 'exact', value: 'x' },
      ),
    ).toEqual(['carl', 'p1/app:1'])
    const byUser = [{ field: 'username', descending: true }]
    expect((await list({ sort: byUser })).entries.map((entry) => entry.actor)).toEqual(['bob', 'ann', 'ann'])
    await expect(list({ conditions: [{ field: 'op_time', match: 'exact', value: 'soon' }] })).rejects.toThrow('op_time')
  })

  it('finds by names and by times what it finds line by line, on every page, before and after the names were counted', async () => {
    for (const [n, month] of ['01', '02', '04'].entries()) {
      for (const actor of ['ann', 'anna', 'bob']) {
        await seed({ at: `2026-${month}-0${n + 3}T23:58:00Z`, actor, resource: `p1/${actor}:${n}`, count: 150 })
        await seed({ at: `2026-${month}-10T00:00:00Z`, actor, project: 2, type: 'pull_artifact', count: 20 })
      }
    }
    await database.db.prisma.$executeRaw`
      insert into events.audit_entries (occurred_at, operation, resource_type, resource, actor)
      select '2026-05-05'::timestamptz + n * interval '1 hour', 'pull', 'artifact', 'many-' || n, 'robot-' || n from generate_series(1, 60) n`
    const lines = (await list({ page: { number: 1, size: 5000 } })).entries
    const at = (text: string) => new Date(text)
    const between = (min: string, max: string) => (time: Date) => time >= at(min) && time <= at(max)
    const term = (field: string, match: 'exact' | 'contains', value: string) => ({ field, match, value }) as const
    const during = (min: string, max: string) =>
      ({ field: 'op_time', match: 'range', min: at(min), max: at(max) }) as const
    const pulls = term('operation', 'exact', 'pull')
    const [days, hours] = [
      ['2026-02-04T00:00:00Z', '2026-04-10T00:00:00Z'],
      ['2026-01-03T23:59:00.000Z', '2026-01-03T23:59:30.500Z'],
    ] as const
    const cases: [NonNullable<AuditQuery['conditions']>, (line: (typeof lines)[number]) => boolean][] = [
      [[term('username', 'exact', 'ann')], (l) => l.actor === 'ann'],
      [[term('username', 'contains', 'NN')], (l) => l.actor.includes('nn')],
      [[term('username', 'contains', 'nn'), pulls], (l) => l.actor.includes('nn') && l.operation === 'pull'],
      [[{ field: 'Username', match: 'in', values: ['bob', 'x'] }], (l) => l.actor === 'bob'],
      [[term('resource', 'contains', 'ann')], (l) => l.resource.includes('ann')],
      [[term('resource', 'contains', 'many')], (l) => l.resource.includes('many')],
      [[term('resource', 'contains', 'many'), pulls], (l) => l.resource.includes('many')],
      [[term('username', 'exact', '%')], () => false],
      [[during(...days)], (l) => between(...days)(l.occurredAt)],
      [[during(...hours)], (l) => between(...hours)(l.occurredAt)],
      [[during(...days), pulls], (l) => between(...days)(l.occurredAt) && l.operation === 'pull'],
      [[{ field: 'op_time', match: 'range', min: at(days[0]) }], (l) => l.occurredAt >= at(days[0])],
      [[{ field: 'op_time', match: 'range', max: at(days[0]), exclusive: true }], (l) => l.occurredAt < at(days[0])],
    ]
    const scopes = [
      ['all', () => true],
      [{ projects: [2] }, (id: number | null) => id === 2],
    ] as const
    for (const counted of [false, true]) {
      for (const [conditions, holds] of cases) {
        for (const [scope, sees] of scopes) {
          for (const descending of [true, false]) {
            const found = lines.filter((line) => holds(line) && sees(line.projectId))
            const expected = (descending ? found : found.toReversed()).map(({ id }) => id)
            for (const page of [
              { number: 1, size: 30 },
              { number: 4, size: 97 },
              { number: Math.ceil(found.length / 30), size: 30 },
            ]) {
              const query = {
                conditions,
                scope,
                sort: [{ field: 'op_time', descending }],
                page: { ...page, number: Math.max(1, page.number) },
              }
              const { total, entries } = await list(query)
              const offset = (query.page.number - 1) * page.size
              expect([query, total, entries.map(({ id }) => id)]).toEqual([
                query,
                found.length,
                expected.slice(offset, offset + page.size),
              ])
            }
          }
        }
      }
      if (!counted) expect(await foldAuditNames(database.db)).toBeGreaterThan(0)
    }
    expect(await foldAuditNames(database.db)).toBe(0)
  })

  it('reads a page in two statements by an index, wherever in a long log it is, once it knows where lines are', async () => {
    await ensureAuditPartitions(database.db)
    for (const month of ['01', '02', '03']) await seed({ at: `2026-${month}-01T00:00:00Z`, count: 4000, project: 5 })
    await seed({ at: '2026-02-10T00:00:00Z', count: 30, project: 6, type: 'delete_artifact' })
    await database.db.prisma.$executeRaw`vacuum (analyze) events.audit_entries`
    const said = { field: 'op_desc', match: 'exact', value: '' } as const
    const during = {
      field: 'op_time',
      match: 'range',
      min: new Date('2026-01-01T00:30:00Z'),
      max: new Date('2026-03-01T00:30:00Z'),
    } as const
    for (const [query, atFirst, most] of [
      [{}, 2, 10],
      [{ page: { number: 381, size: 10 } }, 4, 80],
      [{ page: { number: 605, size: 10 } }, 3, 80],
      [{ page: { number: 1203, size: 10 } }, 2, 80],
      [{ page: { number: 605, size: 10 }, conditions: [said] }, 4, 80],
      [{ page: { number: 305, size: 10 }, conditions: [said, during] }, 3, 80],
      [{ page: { number: 305, size: 10 }, conditions: [during] }, 4, 80],
      [{ scope: { projects: [6] } }, 2, 10],
      [{ scope: { projects: [5, 6] } }, 2, 10],
      [{ scope: { projects: [5] }, page: { number: 2, size: 100 } }, 2, 200],
      [{ scope: { projects: [5] }, page: { number: 101, size: 10 } }, 4, 80],
      [{ sort: [{ field: 'op_time', descending: false }] }, 2, 10],
    ] satisfies [Partial<AuditQuery>, number, number][]) {
      const asked: Prisma.Sql[] = []
      const db = recording(asked)
      const { entries } = await list(query, db)
      expect(entries.length).toBeGreaterThan(0)
      expect([query, asked.length]).toEqual([query, atFirst])
      asked.length = 0
      expect((await list(query, db)).entries).toEqual(entries)
      const times = query.conditions?.includes(during) ? 1 : 0
      expect([query, asked.length]).toEqual([query, 2 + times])
      const { scans, rows } = await explained(asked.at(-1)!)
      expect([query, ...scans]).toEqual([query, 'Index Scan'])
      expect([query, rows > most, rows]).toEqual([query, false, rows])
    }
  })

  it('shows a page while lines come between its statements', async () => {
    await seed({ at: '2026-02-05T00:00:00Z', count: 300 })
    const until = new Date('2026-02-05T12:00:00Z')
    const conditions = [{ field: 'op_time', match: 'range', max: until } as const]
    for (const more of [[], [{ field: 'op_desc', match: 'exact', value: '' } as const]]) {
      const asked: Prisma.Sql[] = []
      const busy = recording(asked, () => seed({ at: '2026-02-05T01:00:00Z', count: 3 }))
      const { total, entries } = await list({ conditions: [...conditions, ...more] }, busy)
      expect(asked.length).toBeGreaterThan(2)
      expect(entries).toHaveLength(10)
      expect(total).toBeLessThanOrEqual(await database.db.prisma.auditEntry.count())
      const { total: now } = await list({ conditions: [...conditions, ...more], page: { number: 31, size: 10 } })
      expect(now).toBe(await database.db.prisma.auditEntry.count())
    }
  })

  it('sees lines that were written, removed or changed since, on whatever day', async () => {
    for (const month of ['01', '02']) await seed({ at: `2026-${month}-05T00:00:00Z`, count: 300, resource: 'p1/a:1' })
    const filters = [
      [],
      [{ field: 'op_desc', match: 'exact', value: '' } as const],
      [
        { field: 'username', match: 'contains', value: 'n' } as const,
        { field: 'op_result', match: 'exact', value: 'true' } as const,
      ],
    ]
    const deep = async () => {
      const answers = []
      for (const conditions of filters) {
        const { total, entries } = await list({ conditions, page: { number: 23, size: 20 } })
        answers.push([total, entries.map(({ actor }) => actor), entries[0]!.occurredAt.toISOString()])
      }
      return answers
    }
    const everywhere = (total: number, actors: string[], at: string) => filters.map(() => [total, actors, at])
    const anns = Array.from({ length: 20 }, () => 'ann')
    expect(await deep()).toEqual(everywhere(600, anns, '2026-01-05T00:02:39.000Z'))
    await seed({ at: '2026-02-05T12:00:00Z', count: 10 })
    expect(await deep()).toEqual(everywhere(610, anns, '2026-01-05T00:02:49.000Z'))
    await seed({ at: '2026-01-05T12:00:00Z', count: 10 })
    expect(await deep()).toEqual(everywhere(620, anns, '2026-01-05T00:02:59.000Z'))
    await database.db.prisma.$executeRaw`
      delete from events.audit_entries where occurred_at between '2026-02-05T00:00:00Z' and '2026-02-05T00:00:09.5Z'`
    expect(await deep()).toEqual(everywhere(610, anns, '2026-01-05T00:02:49.000Z'))
    // As many come as go, on another day of that month.
    await database.db.prisma.$executeRaw`
      with gone as (
        delete from events.audit_entries where occurred_at between '2026-01-05T00:00:00Z' and '2026-01-05T00:00:09.5Z' returning *)
      insert into events.audit_entries (occurred_at, project_id, operation, resource_type, resource, actor)
      select occurred_at + interval '1 day', project_id, operation, resource_type, resource, actor from gone`
    expect(await deep()).toEqual(everywhere(610, anns, '2026-01-05T00:02:59.000Z'))
    // Counts no line more or less, and yet what was known of its day is no longer so.
    await database.db.prisma.$executeRaw`
      update events.audit_entries set description = 'other' where occurred_at between '2026-01-05T00:00:10Z' and '2026-01-05T00:00:19.5Z'`
    expect((await deep()).map(([total]) => total)).toEqual([610, 600, 610])
  })
})

/** The database, what it was asked, and what happens before each. */
const recording = (asked: Prisma.Sql[], before = async () => {}): Pick<Database, 'prisma'> => ({
  prisma: new Proxy(database.db.prisma, {
    get: (prisma, name) =>
      name === '$queryRaw'
        ? async (strings: TemplateStringsArray, ...values: unknown[]) => {
            const sql = Prisma.sql(strings, ...values)
            asked.push(sql)
            await before()
            return prisma.$queryRaw(sql)
          }
        : (Reflect.get(prisma, name) as unknown),
  }),
})

type Plan = { 'Node Type': string; 'Actual Rows': number; 'Rows Removed by Filter'?: number; Plans?: Plan[] }
/** How a statement reads, and how many rows. */
async function explained(sql: Prisma.Sql) {
  const [answer] = await database.db.prisma.$queryRaw<[{ 'QUERY PLAN': [{ Plan: Plan }] }]>(
    Prisma.sql`explain (analyze, format json) ${sql}`,
  )
  const scans = new Set<string>()
  let rows = 0
  const visit = (plan: Plan) => {
    if (plan['Node Type'].includes('Scan')) {
      if (plan['Actual Rows'] > 0) scans.add(plan['Node Type'].replace(/ Backward| Only/g, ''))
      rows += plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0)
    }
    for (const inner of plan.Plans ?? []) visit(inner)
  }
  visit(answer['QUERY PLAN'][0].Plan)
  return { scans, rows }
}

describe('the counts', () => {
  it('follow the entries when they are written, by several at once, moved between partitions and removed', async () => {
    await Promise.all(
      Array.from({ length: 8 }, (_, n) => seed({ at: '2026-01-31T23:59:00Z', count: 120, project: (n % 3) + 1 })),
    )
    await seed({ at: new Date().toISOString(), count: 3, project: null })
    await requireTrueCounts()
    await ensureAuditPartitions(database.db)
    await requireTrueCounts()
    await foldAuditNames(database.db)
    await requireTrueCounts()
    await database.db.prisma.auditEntry.deleteMany({ where: { projectId: 2 } })
    await requireTrueCounts()
    await foldAuditNames(database.db)
    await requireTrueCounts()
    expect((await list()).total).toBe(5 * 120 + 3) // three of the eight wrote of project 2
  })
})
describe('auditLine', () => {
  /** Of these another event's line tells, or they are nobody's doing. */
  const silent = ['GarbageCollected', 'OperationProgressed', 'PullsGathered', 'RepositoryCreated', 'TagMoved']

  it('tells of every event but those that are known to be silent, and of every kind that Harbor offers', () => {
    const events = (Object.values(contract) as unknown[]).filter(
      (value): value is DescMessage =>
        typeof value === 'object' &&
        value !== null &&
        'kind' in value &&
        value.kind === 'message' &&
        (value as DescMessage).fields.some((field) => field.name === 'header'),
    )
    expect(events.length).toBeGreaterThan(25)
    const lines = events.map((schema) => {
      const message = create(schema) as EventMessage
      const line = auditLine({ id: 1n, type: schema.typeName, projectId: null, occurredAt: new Date(0), message })
      return { name: schema.name, kind: line && `${line.operation}_${line.resourceType}` }
    })
    expect(lines.filter(({ kind }) => kind === null).map(({ name }) => name)).toEqual(silent)
    const kinds = new Set(lines.map(({ kind }) => kind))
    expect(auditEventTypes.filter((type) => !kinds.has(type))).toEqual([])
  })
})

describe('auditWriter', () => {
  it('leaves out what is switched off', async () => {
    await emit(database.db.writes, ProjectCreatedSchema, ann, { project: project(1) })
    await emit(database.db.writes, UserSignedInSchema, ann, { user: { name: 'ann' }, succeeded: true })
    await drain({ disabled: new Set(['login_user']) })
    expect((await list()).entries.map((entry) => entry.resourceType)).toEqual(['project'])
  })

  it('tells of many pulls by one in one line, and of a change that was refused as one that failed', async () => {
    const repository = { id: 9n, name: 'p1/app', project: project(1) }
    const artifact = { id: 4n, digest: `sha256:${'a'.repeat(64)}` }
    await emitAll(database.db.writes, ArtifactPulledSchema, [
      { source: ann, facts: { repository, artifact, tag: '1', pulls: 3 } },
      { source: { principal: { kind: 'anonymous' } }, facts: { repository, artifact, pulls: 1 } },
    ])
    await emitAll(database.db.writes, ArtifactPulledSchema, [])
    await emit(database.db.writes, ChangeRefusedSchema, ann, {
      operation: 'update',
      resourceType: 'user',
      resource: '8',
      status: 403,
    })
    await drain()
    const sort = [{ field: 'id', descending: false }]
    const lines = (await list({ sort })).entries.map((e) => [e.actor, e.projectId, e.description, e.success])
    expect(lines).toEqual([
      ['ann', 1, 'pull artifact p1/app:1 (3 times)', true],
      ['anonymous', 1, `pull artifact p1/app@${artifact.digest}`, true],
      ['ann', null, 'update user 8: refused with 403', false],
    ])
  })

  it('reads its policy from the settings, and never skips the database when nothing is forwarded', () => {
    const off = {
      disabled_audit_log_event_types: '',
      pull_audit_log_disable: false,
      audit_log_forward_endpoint: '',
      skip_audit_log_database: true,
    }
    expect(auditPolicy(off)).toEqual({ disabled: new Set(), forward: false, skipDatabase: false })
    const some = {
      ...off,
      disabled_audit_log_event_types: ' create_user, ,login_user',
      audit_log_forward_endpoint: 'logs:514',
    }
    expect(auditPolicy({ ...some, pull_audit_log_disable: true })).toEqual({
      disabled: new Set(['create_user', 'login_user', 'pull_artifact']),
      forward: true,
      skipDatabase: true,
    })
  })
})

describe('purgeAudit', () => {
  const everything = ['create_artifact', 'delete_artifact', 'pull_artifact', 'other']
  const before = new Date('2026-02-10T12:00:00Z')
  /** Months of the past as they were made when they were to come. */
  const months = async (...wanted: string[]) => {
    for (const month of wanted) {
      const [name, from] = [`audit_entries_${month.replace('-', '_')}`, new Date(`${month}-01T00:00:00Z`)]
      const until = new Date(from)
      until.setUTCMonth(until.getUTCMonth() + 1)
      await database.db.prisma.$executeRawUnsafe(
        `create table if not exists events.${name} partition of events.audit_entries
           for values from ('${from.toISOString()}') to ('${until.toISOString()}')`,
      )
    }
  }
  const partitions = async () =>
    (
      await database.db.writes.rows<{ name: string }>(
        statement(
          'parts',
          `select relname as name from pg_class where relname ~ '^audit_entries_20[0-9_]+$' order by 1`,
        ),
        [],
      )
    ).map(({ name }) => name)

  it('drops whole months where every type goes, and the rest line by line', async () => {
    await months('2025-11', '2026-01', '2026-02')
    await seed(
      { at: '2025-10-15T00:00:00Z', count: 6, type: 'create_user', project: null }, // its month has no partition
      { at: '2025-11-15T00:00:00Z', count: 10 },
      { at: '2026-01-15T00:00:00Z', count: 20, type: 'pull_artifact' },
      { at: '2026-02-09T00:00:00Z', count: 5 },
      { at: '2026-02-11T00:00:00Z', count: 7 },
    )
    const asked = { before, eventTypes: everything }
    expect(await countPurgeableAudit(database.db, asked)).toBe(41)
    const told: string[] = []
    const purged = await purgeAudit(database.db, {
      ...asked,
      onPurged: ({ month, entries }) => told.push(`${month} ${entries}`),
    })
    expect(purged).toBe(41)
    expect(told).toEqual(['2025-11 10', '2026-01 20', 'null 11'])
    const left = await partitions()
    expect(left).not.toContain('audit_entries_2026_01')
    expect(left).toContain('audit_entries_2026_02')
    expect((await list()).total).toBe(7)
    await requireTrueCounts()
    expect(await purgeAudit(database.db, asked)).toBe(0)
  })

  it('takes only the types that were named; other is all but those of artifacts', async () => {
    await seed(
      { at: '2026-01-01T00:00:00Z', type: 'pull_artifact', count: 3 },
      { at: '2026-01-02T00:00:00Z', type: 'create_artifact', count: 3 },
      { at: '2026-01-03T00:00:00Z', type: 'create_tag', count: 3 },
      { at: '2026-01-04T00:00:00Z', type: 'login_user', count: 3 },
    )
    const left = async (eventTypes: string[]) => {
      await purgeAudit(database.db, { before, eventTypes })
      await requireTrueCounts()
      return [...new Set((await list({ page: { number: 1, size: 100 } })).entries.map((e) => e.resourceType))]
    }
    expect(await left(['login_user', 'no_such_type'])).toEqual(['tag', 'artifact'])
    expect(await left(['pull_artifact', 'other'])).toEqual(['artifact'])
    expect((await list()).total).toBe(3)
  })

  it('goes through more lines than a transaction takes, of which it passes over some, and stops when it is told to', async () => {
    await seed(
      { at: '2026-01-01T00:00:00Z', count: 5_200 },
      { at: '2026-01-03T00:00:00Z', count: 5_200, type: 'create_tag' },
    )
    const stop = new AbortController()
    const stopping = purgeAudit(database.db, {
      before,
      eventTypes: ['other'],
      signal: stop.signal,
      onPurged: () => stop.abort(new Error('stopped')),
    })
    await expect(stopping).rejects.toThrow('stopped')
    const { total } = await list()
    expect(total).toBeGreaterThan(5_200)
    expect(total).toBeLessThan(10_400)
    expect(await purgeAudit(database.db, { before, eventTypes: ['other'] })).toBe(total - 5_200)
    await requireTrueCounts()
  })

  it('removes nothing in a transaction that must not any more', async () => {
    await months('2026-01')
    await seed({ at: '2026-01-05T00:00:00Z', count: 3 })
    const hold = () => Promise.reject(new Error('the lease was lost'))
    await expect(purgeAudit(database.db, { before, eventTypes: everything, hold })).rejects.toThrow(
      'the lease was lost',
    )
    expect((await list()).total).toBe(3)
  })
})

describe('maskAuditUser', () => {
  it('gives all lines of one actor another name, and no other', async () => {
    await seed({ at: '2026-01-01T00:00:00Z', count: 5_010 }, { at: '2026-01-03T00:00:00Z', actor: 'anna' })
    expect(await maskAuditUser(database.db, { username: 'ann', masked: '5d41402a#7' })).toBe(5_010)
    const conditions = [{ field: 'username', match: 'exact', value: '5d41402a#7' }] as const
    expect((await list({ conditions })).total).toBe(5_010)
    expect((await list({ sort: [] })).entries[0]?.actor).toBe('anna')
    expect(await maskAuditUser(database.db, { username: 'anna', masked: 'anna' })).toBe(0)
    await requireTrueCounts()
  })

  it('gives somebody another name in the lines of what was done to him, and changes no word that only looks like it', async () => {
    const told = async (name: string) => {
      const user = { user: { id: 7n, name } }
      await emit(database.db.writes, UserCreatedSchema, root, user)
      await emit(database.db.writes, UserPasswordChangedSchema, root, user)
      await emit(database.db.writes, UserSysadminChangedSchema, root, { ...user, sysadmin: true })
      await emit(database.db.writes, UserSignedInSchema, nobody, { user: { name }, succeeded: false })
      const membership = { project: { id: 1n, name }, kind: MemberKind.USER, memberId: 7n, memberName: name }
      await emit(database.db.writes, MemberAddedSchema, root, { membership })
      const group = { ...membership, kind: MemberKind.GROUP }
      await emit(database.db.writes, MemberAddedSchema, root, { membership: group })
      await emit(database.db.writes, ProjectCreatedSchema, root, { project: { id: 1n, name } })
      await drain()
    }
    const shown = async () =>
      (await list({ sort: [], page: { number: 1, size: 100 } })).entries
        .map((e) => `${e.resource} | ${e.description}`)
        .sort()
    // Names that are words of the descriptions, too.
    for (const name of ['ann', 'member', 'user', 'a.b*c']) {
      await told(name)
      await maskAuditUser(database.db, { username: name, masked: 'x#7' })
      expect(await shown()).toEqual(
        [
          'x#7 | create user x#7',
          'x#7 | change password of user x#7',
          'x#7 | make system administrator: x#7',
          'x#7 | login',
          `user:x#7 | create user member x#7 in project ${name}`,
          `group:${name} | create group member ${name} in project ${name}`,
          `${name} | create project ${name}`,
        ].sort(),
      )
      expect(await maskAuditUser(database.db, { username: name, masked: 'x#7' })).toBe(0)
      await database.db.prisma.$executeRaw`delete from events.audit_entries`
    }
    await requireTrueCounts()
  })
})

const outbound = new OutboundClient({ allow: ['127.0.0.0/8'] })

/** A syslog server over TCP that reads by octet counting. */
async function receiver() {
  const got: string[] = []
  const sockets = new Set<Socket>()
  let waiting: (() => void) | null = null
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      for (let head = /^(\d+) /.exec(text); head; head = /^(\d+) /.exec(text)) {
        const bytes = Buffer.from(text.slice(head[0].length))
        if (bytes.length < Number(head[1])) break
        got.push(bytes.subarray(0, Number(head[1])).toString())
        text = bytes.subarray(Number(head[1])).toString()
      }
      waiting?.()
    })
    socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  }
  return {
    got,
    endpoint: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close,
    async lines(count: number) {
      while (got.length < count) await new Promise<void>((resolve) => (waiting = resolve))
      return got
    },
  }
}

describe('forwarding', () => {
  const open: { close(): Promise<void> }[] = []
  afterEach(async () => {
    for (const one of open.splice(0)) await one.close()
  })
  const listening = async () => {
    const made = await receiver()
    open.push(made)
    return made
  }
  const forwarder = (endpoint: () => string) =>
    new AuditForwarder({ db: database.db, outbound, endpoint: async () => endpoint(), onFailure: () => undefined })
  const waiting = () => database.db.prisma.auditForward.count()
  const made = (name: string) => emit(database.db.writes, ProjectCreatedSchema, ann, { project: { id: 1n, name } })

  it('sends each line once as an RFC 5424 message over TCP, beside the database or in its place', async () => {
    const to = await listening()
    await made('shop')
    await drain({ forward: true })
    await made('only there')
    await drain({ forward: true, skipDatabase: true })
    expect((await list()).total).toBe(1)
    await using one = forwarder(() => to.endpoint)
    await using other = forwarder(() => to.endpoint)
    const sent = await Promise.all([one.drain(), other.drain()])
    expect(sent[0] + sent[1]).toBe(2)
    const lines = (await to.lines(2)).toSorted()
    expect(lines.join('\n')).toMatch(
      /^<110>1 \S+Z \S+ audit - - - time=\S+ level=info msg="action:create, resource:only there, operation_description:create project only there" operator=ann resourceType=project success=true address=192\.0\.2\.1 request=r-1$/m,
    )
    expect(await waiting()).toBe(0)
  })

  it('keeps lines while the receiver is away, and sends them to the one that is set then', async () => {
    const gone = await receiver()
    await gone.close()
    let endpoint = gone.endpoint
    await using sending = forwarder(() => endpoint)
    await made('a')
    await drain({ forward: true })
    await expect(sending.drain()).rejects.toThrow()
    expect(await waiting()).toBe(1)
    endpoint = ''
    expect(await sending.drain()).toBe(0)
    const back = await listening()
    endpoint = back.endpoint
    expect(await sending.drain()).toBe(1)
    expect(await back.lines(1)).toHaveLength(1)
  })

  it('sends what somebody had in hand who died, and forgets what nobody took for long', async () => {
    await made('a')
    await made('b')
    await drain({ forward: true })
    await database.db.prisma.$executeRaw`update events.audit_forwards set claimed_until = now() + interval '1 hour'`
    const to = await listening()
    await using sending = forwarder(() => to.endpoint)
    expect(await sending.drain()).toBe(0)
    await database.db.prisma.$executeRaw`
      update events.audit_forwards set claimed_until = now() - interval '1 second' where entry->>'resource' = 'a'`
    expect(await sending.drain()).toBe(1)
    expect(await forgetUnsentAudit(database.db, 168)).toBe(0)
    await database.db.prisma.$executeRaw`update events.audit_forwards set created_at = now() - interval '8 days'`
    expect(await forgetUnsentAudit(database.db, 168)).toBe(1)
  })

  it('lets no name forge a line or a field', () => {
    const entry = {
      at: '2026-01-01T00:00:00.000Z',
      operator: 'eve" operator=admin',
      operation: 'login',
      resourceType: 'user',
      resource: 'x\n<110>1 2026-01-01T00:00:00Z h audit - - - msg=forged\u0085\u001b[31m',
      description: '',
      success: false,
      address: '',
      requestId: '',
    }
    const message = auditMessage(entry, 'host')
    expect(Array.from(message).filter((char) => char < ' ' || (char >= '\u007f' && char <= '\u009f'))).toEqual([])
    expect(message).toContain(String.raw`operator="eve\" operator=admin"`)
  })

  it('A91: says whether a receiver is there, and looks for it only where one may be', async () => {
    const to = await listening()
    await expect(checkForwardEndpoint(outbound, to.endpoint)).resolves.toBeUndefined()
    // A91 R11
    const strict = new OutboundClient({ allow: [] })
    for (const refused of [to.endpoint, '169.254.169.254:514', '[fd00:ec2::254]:6514', '10.0.0.1:6379']) {
      await expect(checkForwardEndpoint(strict, refused)).rejects.toThrow('an address that may not be reached')
    }
    const gone = await receiver()
    await gone.close()
    await expect(checkForwardEndpoint(outbound, gone.endpoint)).rejects.toMatchObject({ status: 400 })
    for (const wrong of [
      'logs',
      'logs:',
      ':514',
      'tcp://logs:514',
      'logs:0',
      'logs:65536',
      'a b:1',
      '::1:514',
      'u@h:1',
    ]) {
      await expect(checkForwardEndpoint(outbound, wrong)).rejects.toThrow('host:port')
    }
  })
})
