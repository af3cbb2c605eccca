import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, send, until } from './client.ts'

let haven: HavenInstallation
let client: Client
let token = ''
beforeAll(async () => {
  const env = { JOBSERVICE_LEASE: '5s', JOBSERVICE_RECONCILE: '1s', HAVEN_DRAIN: '20s' }
  haven = await startHaven({ shape: 'split', env })
  client = new Client(haven.url)
  await client.project('many')
  token = await client.token(ADMIN, 'many/app')
}, 180_000)
afterAll(async () => {
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

const INDEX = 'application/vnd.oci.image.index.v1+json'
const basic = `Basic ${Buffer.from(`${ADMIN.name}:${ADMIN.password}`).toString('base64')}`

/** The smallest artifacts there are, eight at a time. */
async function push(prefix: string, count: number, repository = 'many/app', as = token): Promise<void> {
  const tags = Array.from({ length: count }, (_, i) => `${prefix}${i}`)
  const next = async () => {
    for (let tag = tags.pop(); tag !== undefined; tag = tags.pop()) {
      const body = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], annotations: { tag } })
      const put = await client.v2('PUT', `${repository}/manifests/${tag}`, as, {
        headers: { 'Content-Type': INDEX },
        body,
      })
      if (put.status !== 201) throw new Error(`${tag}: ${put.status} ${put.text}`)
    }
  }
  await Promise.all(Array.from({ length: 8 }, next))
}

type Operation = { id: number; state: string; total: number; done: number; failed: number }
const operations = (method: string, path = '', body?: object, key?: string) =>
  send(`${haven.url}/api/haven/v1/operations${path}`, method, {
    as: ADMIN,
    ...(body && { body }),
    ...(key !== undefined && { headers: { 'Idempotency-Key': key } }),
  })
const get = async (id: number) => (await operations('GET', `/${id}`)).json as Operation
const ended = (id: number) =>
  until(
    'it has ended',
    () => get(id),
    ({ state }) => ['Stopped', 'Error', 'Success'].includes(state),
    60_000,
  )
const deletions = async () =>
  (
    await haven.query<{ digest: string }>(
      `select payload->'artifact'->>'digest' as digest from events.outbox where type = 'haven.events.v1.ArtifactDeleted'`,
    )
  ).map(({ digest }) => digest)

/** Events as they come through the door. */
class Listener {
  readonly told: { event: string; data: Record<string, unknown> }[] = []
  lastEventId = ''
  retryMs = ''
  ended = false
  readonly #leave = new AbortController()

  async open(from = ''): Promise<Response> {
    const headers = { Authorization: basic, ...(from !== '' && { 'Last-Event-ID': from }) }
    const response = await fetch(`${haven.url}/api/v2.0/events`, { headers, signal: this.#leave.signal })
    this.ended = false
    void this.#read(response)
    return response
  }

  leave() {
    this.#leave.abort()
  }

  async #read(response: Response) {
    let text = ''
    try {
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk
        const blocks = text.split('\n\n')
        text = blocks.pop()!
        for (const block of blocks) this.#take(block)
      }
      this.ended = true
    } catch {
      // Cut off, or left: not an end.
    }
  }

  #take(block: string) {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1]
    this.lastEventId = field('id') ?? this.lastEventId
    this.retryMs = field('retry') ?? this.retryMs
    const data = field('data')
    if (data !== undefined)
      this.told.push({ event: field('event')!, data: JSON.parse(data) as Record<string, unknown> })
  }

  of = (event: string) => this.told.filter((one) => one.event === event)
}

describe('an operation on many artifacts', () => {
  it('goes on when its worker is killed, deletes each artifact once, and is followed live (F23, I14)', async () => {
    await push('a', 150)
    const listener = new Listener()
    const { headers } = await listener.open()
    expect([headers.get('content-type'), headers.get('x-accel-buffering')]).toEqual(['text/event-stream', 'no'])
    const asked = { kind: 'delete', selector: { project: 'many', repository: 'app' } }
    const started = await operations('POST', '', asked, 'once')
    const { id } = started.json as Operation
    expect([started.status, started.json]).toMatchObject([201, { total: 150 }])
    await until(
      'it works',
      () => get(id),
      ({ done }) => done > 10,
    )
    const killed = haven.processes().jobservice!
    process.kill(killed, 'SIGKILL')
    expect(await ended(id)).toMatchObject({ state: 'Success', total: 150, done: 150, failed: 0 })
    const digests = await deletions()
    expect([digests.length, new Set(digests).size]).toEqual([150, 150])
    expect((await operations('POST', '', asked, 'once')).json).toMatchObject({ id, state: 'Success' })
    await until(
      'the end is told',
      async () => listener.of('operation.progress').at(-1)?.data,
      (data) => data?.state === 'Success',
    )
    expect(new Set(listener.of('artifact.deleted').map(({ data }) => data.digest)).size).toBe(150)
    const counts = listener.of('operation.progress').map(({ data }) => Number(data.done))
    expect(counts).toEqual(counts.toSorted((a, b) => a - b))
    listener.leave()
  }, 120_000)

  it('leaves the rest undone when it is cancelled', async () => {
    await push('b', 150)
    const asked = { kind: 'delete', selector: { project: 'many', repository: 'app', q: 'tags=~b' } }
    // So that it is not done before it can be cancelled.
    const held = haven.query(
      `with held as materialized (
         select m.id from artifacts.manifests m join artifacts.tags t on t.manifest_id = m.id where t.name like 'b%' for update of m)
       select pg_sleep(2), count(*) from held`,
    )
    const { id } = (await operations('POST', '', asked)).json as Operation
    await operations('POST', `/${id}/cancel`)
    await held
    const { state, done } = await ended(id)
    const left = await client.mustApi('GET', '/projects/many/repositories/app/artifacts?page_size=1')
    expect([state, Number(left.headers.get('x-total-count'))]).toEqual(['Stopped', 150 - done])
    expect(done).toBeLessThan(150)
  }, 120_000)

  it('copies to another project without moving bytes', async () => {
    await client.project('released')
    const image = await client.pushImage('many/app', 'real', token)
    const selector = { project: 'many', references: [{ repository: 'app', reference: 'real' }] }
    const { id } = (await operations('POST', '', { kind: 'copy', selector, destination: { project: 'released' } }))
      .json as Operation
    expect(await ended(id)).toMatchObject({ state: 'Success', done: 1, failed: 0 })
    const reader = await client.token(ADMIN, 'released/app')
    const pulled = await client.pull('released/app', 'real', reader)
    expect(`sha256:${createHash('sha256').update(pulled.text).digest('hex')}`).toBe(image.digest)
  })

  it('says what it may not do and why, tries that again, and takes back what it did', async () => {
    await client.project('careful')
    const tokenHere = await client.token(ADMIN, 'careful/app')
    await push('v', 3, 'careful/app', tokenHere)
    const rule = {
      template: 'immutable_template',
      action: 'immutable',
      tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: 'v0' }],
      scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: '**' }] },
    }
    await client.mustApi('POST', '/projects/careful/immutabletagrules', ADMIN, rule)
    const tags = async () => {
      const { json } = await client.v2('GET', 'careful/app/tags/list', tokenHere)
      return (json as { tags: string[] | null }).tags ?? []
    }
    const begin = async (path: string, body?: object) => {
      const reply = await operations('POST', path, body)
      expect([path, reply.status, reply.text]).toEqual([path, 201, expect.any(String)])
      return ended((reply.json as Operation).id)
    }
    const protectedOne = { failed: 1, failures: [{ code: 'PRECONDITION', reason: 'immutable', count: 1 }] }

    const search = { search: 'repository:careful/app' }
    const rehearsed = await begin('', { kind: 'delete', dryRun: true, selector: search })
    expect(rehearsed).toMatchObject({ state: 'Success', total: 3, ...protectedOne })
    expect((rehearsed as Operation & { sample: string[] }).sample).toEqual([
      expect.stringContaining('careful/app@sha256:'),
      expect.stringContaining('careful/app@sha256:'),
    ])
    expect(await tags()).toEqual(['v0', 'v1', 'v2'])
    expect((await operations('POST', `/${rehearsed.id}/undo`)).status).toBe(409)

    const first = await begin('', { kind: 'untag', tag: 'v*', selector: search })
    expect([first, await tags()]).toMatchObject([{ total: 3, done: 3, ...protectedOne }, ['v0']])
    const rules = (await client.mustApi('GET', '/projects/careful/immutabletagrules')).json as { id: number }[]
    await client.mustApi('DELETE', `/projects/careful/immutabletagrules/${rules[0]!.id}`)
    const again = await begin(`/${first.id}/retry`)
    expect([again, await tags()]).toMatchObject([{ retries: first.id, total: 1, done: 1, failed: 0 }, []])
    const undone = await begin(`/${first.id}/undo`)
    expect([undone, await tags()]).toMatchObject([{ kind: 'tag', undoes: first.id, total: 2, failed: 0 }, ['v1', 'v2']])
    expect((await operations('POST', `/${first.id}/undo`)).json).toMatchObject({ id: undone.id })
    await begin(`/${again.id}/undo`)
    expect(await tags()).toEqual(['v0', 'v1', 'v2'])

    const logged = await until(
      'all of it is in the log',
      async () => {
        const path = `/projects/careful/auditlog-exts?page_size=100&q=${encodeURIComponent('resource_type=tag')}`
        const lines = (await client.mustApi('GET', path)).json as { operation: string; username: string }[]
        return lines.map(({ operation, username }) => `${username} ${operation}`).toSorted()
      },
      (lines) => lines.length >= 6,
    )
    expect(logged).toEqual([...Array<string>(3).fill('admin create'), ...Array<string>(3).fill('admin delete')])

    await client.mustApi('POST', '/projects', ADMIN, { project_name: 'tiny', storage_limit: 10 })
    const copied = await begin('', { kind: 'copy', selector: search, destination: { project: 'tiny' } })
    expect(copied).toMatchObject({ total: 3, failed: 3, failures: [{ code: 'DENIED', reason: 'quota', count: 3 }] })
  }, 60_000)
})

describe('a stream of events', () => {
  it.each(['core', 'proxy'])(
    'ends when %s goes down, and goes on with the next one',
    async (service) => {
      const listener = new Listener()
      await listener.open()
      await push(`${service}-1-`, 1)
      await until(
        'it is told',
        async () => listener.of('artifact.pushed').map(({ data }) => data.tag),
        (tags) => tags.includes(`${service}-1-0`),
      )
      const going = haven.processes()[service]!
      process.kill(going, 'SIGTERM')
      await until(
        'the stream has ended',
        async () => listener.ended,
        (is) => is,
      )
      expect(Number(listener.retryMs)).toBeGreaterThan(0)
      await until(
        'it is back',
        () => client.api('GET', '/systeminfo').catch(() => null),
        (reply) => reply?.status === 200,
        30_000,
      )
      await push(`${service}-2-`, 2)
      const next = new Listener()
      await until(
        'it listens again',
        // The one that goes down may have answered until now, over a connection that was kept.
        () => next.open(listener.lastEventId).catch(() => null),
        (reply) => reply?.status === 200,
        30_000,
      )
      await until(
        'what was missed is told',
        async () => {
          // It was still the one that goes down, which ends what it begins: as browsers do, it is asked for again.
          if (next.ended) await next.open(next.lastEventId || listener.lastEventId).catch(() => null)
          return next.of('artifact.pushed').length
        },
        (count) => count >= 2,
      )
      const tags = next.of('artifact.pushed').map(({ data }) => data.tag)
      expect(tags).toEqual(expect.arrayContaining([`${service}-2-0`, `${service}-2-1`]))
      expect(next.of('reload')).toEqual([])
      next.leave()
      // It answers over kept connections until it is gone, and would answer the next of these.
      await until(
        'it is gone',
        async () => existsSync(`/proc/${going}`),
        (is) => !is,
        40_000,
      )
    },
    90_000,
  )
})
