import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { JsonObject } from '@haven/queue'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import type { Job, JobDeps } from '../src/job-deps.ts'
import maskAuditLog from '../src/jobs/mask-audit-log.ts'
import purgeAuditLog from '../src/jobs/purge-audit-log.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())

const HOUR_MS = 3_600_000
const seed = (hoursAgo: number, actor = 'ann') =>
  database.db.prisma.auditEntry.create({
    data: {
      occurredAt: new Date(Date.now() - hoursAgo * HOUR_MS),
      operation: 'create',
      resourceType: 'user',
      resource: `${hoursAgo}`,
      actor,
    },
  })
const left = async () =>
  (await database.db.prisma.auditEntry.findMany({ orderBy: { id: 'asc' } })).map((e) => e.resource)

/** A run of a job by itself. Answers its log. */
async function run(job: Job, params: JsonObject): Promise<string> {
  const lines: string[] = []
  const say = (line: string) => void lines.push(line)
  await job.run({
    params,
    // The only one that these jobs look at.
    deps: { db: database.db } as JobDeps,
    log: { debug: say, info: say, warn: say, error: say },
    signal: new AbortController().signal,
    executionId: 1,
    jobId: 'a',
    attempt: 1,
    progress: () => undefined,
    attributes: async () => undefined,
    cursor: null,
    saveCursor: async () => undefined,
    hold: async () => undefined,
    yieldTurn() {
      throw new Error('these jobs have one turn')
    },
  })
  return lines.join('\n')
}

describe('the purge of the audit log', () => {
  it('removes what is older than the retention, or only says how much that is, and without a retention nothing', async () => {
    for (const hoursAgo of [1, 23, 25, 9000]) await seed(hoursAgo)
    const asked = (more: object = {}): JsonObject =>
      purgeAuditLog.scheduledTask!({ audit_retention_hour: 24, include_event_types: 'create_artifact, other', ...more })
        .parameters
    expect(await run(purgeAuditLog, asked({ dry_run: true }))).toContain('would purge 2 entries')
    for (const hours of [0, -1]) {
      expect(await run(purgeAuditLog, asked({ audit_retention_hour: hours }))).toContain('nothing is purged')
    }
    expect(await left()).toHaveLength(4)
    expect(await run(purgeAuditLog, asked())).toContain('2 entries purged in all')
    expect(await left()).toEqual(['1', '23'])
  })
})

describe('the job that takes a name out of the audit log', () => {
  it('writes the other name, and does not write the first one into its log', async () => {
    await seed(2, 'private-person')
    const log = await run(maskAuditLog, { username: 'private-person', masked: 'deleted#9' })
    expect(log).not.toContain('private-person')
    const actors = (await database.db.prisma.auditEntry.findMany()).map((entry) => entry.actor)
    expect(actors).toContain('deleted#9')
    expect(actors).not.toContain('private-person')
  })
})
