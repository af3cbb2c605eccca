import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { OutboxDispatcher, type RecordedEvent } from '@haven/events'
import type { Principal } from '@haven/identity'
import type { ArtifactPulled } from '@haven/proto/events'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { grant } from './grants.ts'
import { PullLog } from './pull-log.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.db.prisma.$executeRaw`truncate events.outbox`
})

const project = {
  id: 3,
  name: 'shop',
  public: true,
  ownerId: 1,
  registryId: null,
  createdAt: new Date(0),
  updatedAt: new Date(0),
  metadata: {},
  immutableRules: [],
  quotaBytes: -1,
}
const digest = `sha256:${'a'.repeat(64)}`
const manifest = { repositoryId: 9, id: '12', digest, mediaType: 'application/vnd.oci.image.manifest.v1+json' }
const pull = (principal: Principal, address = '192.0.2.1') =>
  grant('pull', { project, repository: 'cart', principal, requestId: 'r-1', address, door: 'registry' })
const ann: Principal = { kind: 'user', id: 7, name: 'ann' }
const fail = (error: Error) => {
  throw error
}
const wanted = async () => true

/** Since the last time, as readers of events get them. */
async function told(): Promise<string[]> {
  const events: RecordedEvent[] = []
  await using dispatcher = new OutboxDispatcher({
    db: database.db,
    handlers: [async (_, some) => void events.push(...some)],
    onFailure: fail,
  })
  await dispatcher.drain()
  return events.map(({ type, projectId, message }) => {
    const { header, tag, pulls } = message as ArtifactPulled
    return `${type.split('.').at(-1)} ${projectId} ${header?.actor?.name} ${tag} ${pulls}`
  })
}

describe('PullLog', () => {
  it('tells of all pulls of the same by one principal from one address in one event', async () => {
    await using log = new PullLog(database.db, wanted, fail)
    for (let n = 0; n < 5; n++) log.note(pull(ann), manifest, '1')
    log.note(pull(ann), manifest, undefined)
    log.note(pull(ann, '192.0.2.2'), manifest, '1')
    log.note(pull({ kind: 'anonymous' }), manifest, '1')
    log.note(pull({ kind: 'service', name: 'jobservice' }), manifest, '1')
    await log.flush()
    expect(await told()).toEqual([
      'ArtifactPulled 3 ann 1 5',
      'ArtifactPulled 3 ann  1',
      'ArtifactPulled 3 ann 1 1',
      'ArtifactPulled 3 anonymous 1 1',
    ])
  })

  it('tells of none while that is switched off', async () => {
    await using log = new PullLog(database.db, async () => false, fail)
    log.note(pull(ann), manifest, '1')
    await log.flush()
    expect(await told()).toEqual([])
  })

  it('keeps what it could not write, and writes it at the end', async () => {
    const failures: Error[] = []
    let away = true
    const flaky = new Proxy(database.db, {
      get: (db, key) => {
        if (key === 'writes' && away) throw new Error('away')
        return Reflect.get(db, key, db) as unknown
      },
    })
    {
      await using log = new PullLog(flaky, wanted, (error) => failures.push(error))
      log.note(pull(ann), manifest, '1')
      await log.flush()
      log.note(pull(ann), manifest, '1')
      expect([failures.length, await told()]).toEqual([1, []])
      away = false
    }
    expect(await told()).toEqual(['ArtifactPulled 3 ann 1 2'])
  })

  it('writes when many different are held, one write after the other, and waits after one that failed', async () => {
    const failures: Error[] = []
    let writes = 0
    let answer = Promise.withResolvers<boolean>()
    const counted = () => {
      writes++
      return answer.promise
    }
    await using log = new PullLog(database.db, counted, (error) => failures.push(error))
    const note = async (count: number, of: string) => {
      for (let n = 0; n < count; n++) log.note(pull(ann), manifest, `${of}${n}`)
      await new Promise(setImmediate)
      return writes
    }
    expect(await note(499, 'a')).toBe(0)
    expect(await note(1, 'b')).toBe(1)
    expect(await note(600, 'c')).toBe(1)
    answer.resolve(true)
    while ((await told()).length < 500) await new Promise((resolve) => setTimeout(resolve, 10))
    answer = Promise.withResolvers()
    while (writes === 1) await note(1, 'd')
    answer.reject(new Error('away'))
    await new Promise(setImmediate)
    expect(failures).toHaveLength(1)
    expect(await note(600, 'e')).toBe(2)
    answer = Promise.withResolvers()
    answer.resolve(true)
  })
})
