import { createServer, type Server } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import type { Database } from '@haven/db'
import { emit, type EventSource } from '@haven/events'
import type { Authority, Principal } from '@haven/identity'
import { ConfigurationChangedSchema, OperationProgressedSchema, ActorKind } from '@haven/proto/events'
import { EventHub, type EventHubOptions, type NewListener } from '../src/events/hub.ts'
import { streamed, streamedTypes, topics } from '../src/events/streamed.ts'
import { ADMIN, Browser, PASSWORD, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let source: EventSource
const open: AbortController[] = []
beforeAll(async () => {
  core = await startCore()
  source = { principal: { kind: 'user', id: 1, name: 'admin' } }
})
afterEach(() => {
  for (const one of open.splice(0)) one.abort()
})
afterAll(() => core[Symbol.asyncDispose]())

type Told = { event: string; data: Record<string, unknown>; lastEventId: string }

/** A listener as a browser's EventSource is one. */
class Stream {
  readonly told: Told[] = []
  lastEventId = ''
  ended = false
  readonly response: Response
  readonly #leave: AbortController

  private constructor(response: Response, leave: AbortController) {
    this.response = response
    this.#leave = leave
  }

  static async open(url: string, headers: Record<string, string> = {}): Promise<Stream> {
    const leave = new AbortController()
    open.push(leave)
    const response = await fetch(url, { headers, signal: leave.signal })
    const stream = new Stream(response, leave)
    void stream.#read()
    return stream
  }

  leave() {
    this.#leave.abort()
  }

  async #read() {
    let text = ''
    try {
      for await (const chunk of this.response.body!.pipeThrough(new TextDecoderStream())) {
        text += chunk
        for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
          this.#take(text.slice(0, end))
          text = text.slice(end + 2)
        }
      }
    } catch {
      // We left.
    }
    this.ended = true
  }

  #take(block: string) {
    const fields = Object.fromEntries(
      block.split('\n').map((line) => {
        const colon = line.indexOf(':')
        return [line.slice(0, colon), line.slice(colon + 1).trim()]
      }),
    )
    this.lastEventId = fields.id ?? this.lastEventId
    if (fields.data === undefined) return
    const data = JSON.parse(fields.data) as Record<string, unknown>
    this.told.push({ event: fields.event ?? 'message', data, lastEventId: this.lastEventId })
  }

  topics = () => this.told.map(({ event }) => event)
}

const basic = (as: NonNullable<Credentials>) => ({
  Authorization: `Basic ${Buffer.from(`${as.name}:${as.password}`).toString('base64')}`,
})
const listen = (as: NonNullable<Credentials>, query = '', headers: Record<string, string> = {}) =>
  Stream.open(`${core.url}/api/v2.0/events${query}`, { ...basic(as), ...headers })

async function until(what: string, isIt: () => boolean): Promise<void> {
  for (const deadline = performance.now() + 15_000; !isIt();) {
    if (performance.now() > deadline) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Something that everybody hears: what was to be told before it was told. */
const mark = () => emit(core.db.writes, ConfigurationChangedSchema, source, { keys: ['read_only'] })
const marks = (stream: Stream) => stream.topics().filter((topic) => topic === 'readonly.changed').length

describe('the stream of events', () => {
  it('is one that nothing on the way may gather or keep', async () => {
    const { response } = await listen(ADMIN)
    expect(response.status).toBe(200)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    })
  })

  it('is for who signed in', async () => {
    expect((await core.send('GET', '/api/v2.0/events')).status).toBe(401)
    const wrong = await core.send('GET', '/api/v2.0/events?topics=artifact.eaten', { as: ADMIN })
    expect([wrong.status, wrong.text]).toEqual([400, expect.stringContaining('artifact.eaten')])
  })

  it('tells each listener what he may see as his rights are then (R10)', async () => {
    const ann = await core.user('ann')
    await core.user('ben')
    const ben = { name: 'ben', password: PASSWORD }
    const [toAdmin, toAnn, toBen] = [await listen(ADMIN), await listen(ann), await listen(ben)]
    const projectId = await core.project('secret', ann)
    await until('ann hears', () => toAnn.topics().includes('project.created'))
    const member = { role_id: 3, member_user: { username: 'ben' } }
    const added = await core.send('POST', '/api/v2.0/projects/secret/members', { as: ann, body: member })
    await until('ben is a member', () => toBen.topics().includes('role.changed'))
    const update = (value: string) =>
      core.send('PUT', '/api/v2.0/projects/secret', { as: ann, body: { metadata: { auto_scan: value } } })
    await update('true')
    await until('ben hears', () => toBen.topics().includes('project.updated'))
    expect(toBen.told.find(({ event }) => event === 'project.updated')?.data).toEqual({
      id: expect.stringMatching(/^\d+$/),
      at: expect.any(String),
      project: projectId,
      fields: ['auto_scan'],
    })
    await core.send('DELETE', added.headers.get('location')!, { as: ann })
    await until('ben is none', () => toBen.topics().filter((topic) => topic === 'role.changed').length === 2)
    await update('false')
    await mark()
    for (const stream of [toAdmin, toAnn, toBen]) await until('all is told', () => marks(stream) > 0)
    const updates = (stream: Stream) => stream.topics().filter((topic) => topic === 'project.updated').length
    expect([updates(toAdmin), updates(toAnn), updates(toBen)]).toEqual([2, 2, 1])
    expect(toBen.topics()).not.toContain('project.created')
    expect(toBen.topics()).not.toContain('config.changed')
    expect(toAdmin.topics()).toContain('config.changed')
  })

  it('tells of an operation nobody but its owner', async () => {
    const cid = await core.user('cid')
    const [toAdmin, toCid] = [await listen(ADMIN), await listen(cid)]
    const owner = { kind: ActorKind.USER, id: BigInt(cid.id), name: 'cid' }
    await emit(core.db.writes, OperationProgressedSchema, source, { operation: 5n, state: 'Running', owner })
    await mark()
    await until('all is told', () => marks(toAdmin) > 0 && marks(toCid) > 0)
    expect(toCid.topics()).toContain('operation.progress')
    expect(toAdmin.topics()).not.toContain('operation.progress')
  })

  it('holds only the topics that were asked for', async () => {
    const [some, all] = [await listen(ADMIN, '?topics=project.*,readonly.changed'), await listen(ADMIN)]
    await core.project('asked')
    await mark()
    await until('all is told', () => marks(some) > 0 && marks(all) > 0)
    expect(new Set(some.topics())).toEqual(new Set(['project.created', 'readonly.changed']))
    expect(all.topics()).toContain('config.changed')
  })

  it('goes on where it was left, also when everybody had left', async () => {
    const first = await listen(ADMIN)
    await core.project('one')
    await until('one', () => first.topics().includes('project.created'))
    const { lastEventId } = first
    first.leave()
    await until('nobody listens', () => first.ended)
    await core.project('two')
    await core.project('three')
    const later = await listen(ADMIN, '?topics=project.created', { 'Last-Event-ID': lastEventId })
    await until('both', () => later.told.length === 2)
    expect(later.topics()).toEqual(['project.created', 'project.created'])
  })

  it('ends with the session, which it does not lengthen (A69)', async () => {
    const browser = new Browser(core)
    await browser.login(ADMIN.name, ADMIN.password)
    const Cookie = [...browser.cookies].map(([name, value]) => `${name}=${value}`).join('; ')
    const sid = browser.cookies.get('sid')!
    const before = await core.idleMs(sid)
    expect(before).toBeGreaterThan(0)
    await new Promise((resolve) => setTimeout(resolve, 20))
    const stream = await Stream.open(`${core.url}/api/v2.0/events`, { Cookie })
    expect(stream.response.status).toBe(200)
    expect(await core.idleMs(sid)).toBeLessThan(before)
    await browser.send('GET', '/c/log_out')
    await until('the stream has ended', () => stream.ended)
    expect((await Stream.open(`${core.url}/api/v2.0/events`, { Cookie })).response.status).toBe(401)
  })

  it('ends when the account is disabled or gets another password', async () => {
    const dan = await core.user('dan')
    const eve = await core.user('eve')
    const streams = [await listen(dan), await listen(eve)]
    await core.admin('DELETE', `/users/${dan.id}`)
    await core.admin('PUT', `/users/${eve.id}/password`, { new_password: 'Other1234' })
    await until('both have ended', () => streams.every(({ ended }) => ended))
  })
})

type Stubs = { options?: Partial<EventHubOptions>; authority?: () => Promise<Authority> }

/** Listeners of a hub with times and limits of its own. */
async function hubServer({ options = {}, authority }: Stubs = {}) {
  const reads: string[] = []
  const rows: Database['writes']['rows'] = (statement, values) => {
    reads.push(statement.name)
    return core.db.writes.rows(statement, values)
  }
  const failures: Error[] = []
  const hub = new EventHub(
    {
      db: { writes: { rows, one: (statement, values) => core.db.writes.one(statement, values) } } as Database,
      authorities: { of: (principal: Principal) => authority?.() ?? core.authorities.of(principal) },
      sessions: { load: () => Promise.resolve(null) },
      directory: core.directory,
      onFailure: (failure) => failures.push(failure),
    },
    { lookEveryMs: 10, ...options },
  )
  const given: NewListener = {
    principal: { kind: 'user', id: 1, name: 'admin' },
    sessionId: null,
    address: '192.0.2.1',
    topics: null,
    lastEventId: null,
  }
  const refused: unknown[] = []
  const server: Server = createServer((req, res) => {
    const more = JSON.parse(decodeURIComponent(req.url!.slice(2)) || '{}') as Partial<NewListener>
    const lastEventId = more.lastEventId === undefined ? null : BigInt(more.lastEventId!)
    hub.listen(res, { ...given, ...more, lastEventId }).catch((error: unknown) => {
      refused.push(error)
      res.writeHead((error as { status?: number }).status ?? 500).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const port = (server.address() as AddressInfo).port
  return {
    hub,
    reads,
    failures,
    port,
    stream: (more: object = {}) => Stream.open(`http://127.0.0.1:${port}/?${encodeURIComponent(JSON.stringify(more))}`),
    async [Symbol.asyncDispose]() {
      for (const one of open.splice(0)) one.abort()
      await hub[Symbol.asyncDispose]()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('the hub of events', () => {
  it('reads once for all who listen, and nothing for nobody', async () => {
    await using at = await hubServer({ options: { lookEveryMs: 1_000_000, inAll: 100, perPrincipal: 100 } })
    const streams: Stream[] = []
    for (let i = 0; i < 50; i++) streams.push(await at.stream())
    expect(at.reads).toEqual(['events tail'])
    for (const one of streams) one.leave()
    await until('nobody listens', () => at.hub.listeners === 0)
    await using again = await hubServer({ options: { perPrincipal: 100 } })
    const those: Stream[] = []
    for (let i = 0; i < 50; i++) those.push(await again.stream())
    await mark()
    await until('all is told', () => those.every((one) => marks(one) === 1))
    const looks = again.reads.length
    await again.hub[Symbol.asyncDispose]()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(again.reads.length - looks).toBeLessThanOrEqual(1)
  })

  it('reads what was missed once for all who come back, and says when it is forgotten', async () => {
    await using at = await hubServer({ options: { perPrincipal: 100, lookEveryMs: 1_000_000 } })
    const first = await at.stream()
    await until('a position', () => first.lastEventId !== '')
    first.leave()
    await until('nobody listens', () => at.hub.listeners === 0)
    await mark()
    // More than a hub that begins looks at.
    await core.db.prisma
      .$executeRaw`insert into events.outbox (type, payload) select 'none', '{}' from generate_series(1, 1001)`
    at.reads.length = 0
    const back = await Promise.all(Array.from({ length: 30 }, () => at.stream({ lastEventId: first.lastEventId })))
    await until('all is told', () => back.every((one) => marks(one) === 1))
    expect(at.reads.toSorted()).toEqual(['events stored', 'events tail', 'events tail'])
    expect(back.every((one) => !one.topics().includes('reload'))).toBe(true)
    for (const one of back) one.leave()
    await until('nobody listens', () => at.hub.listeners === 0)
    await core.db.prisma.outboxEvent.deleteMany({ where: { id: { lte: BigInt(first.lastEventId) + 1n } } })
    for (const lost of [first.lastEventId, '-1', '99999999999']) {
      const stream = await at.stream({ lastEventId: lost })
      await until(`reload after ${lost}`, () => stream.topics().includes('reload'))
      expect(marks(stream)).toBe(0)
    }
  })

  it('keeps nothing for a listener who does not read, and tells him so when he does', async () => {
    await using at = await hubServer({ options: { heartbeatMs: 20 } })
    const socket = connect(at.port, '127.0.0.1')
    socket.pause()
    socket.write('GET /? HTTP/1.1\r\nHost: x\r\n\r\n')
    await until('he listens', () => at.hub.listeners === 1)
    const stream = await at.stream()
    const keys = ['x'.repeat(100_000), 'read_only']
    const rounds = 120
    for (let i = 0; i < rounds; i++) await emit(core.db.writes, ConfigurationChangedSchema, source, { keys })
    await until('the other one has all', () => marks(stream) === rounds)
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    socket.resume()
    await until('he is told', () => text.includes('event: reload'))
    expect(text.split('event: config.changed').length - 1).toBeLessThan(rounds)
    const position = () => Number(/id: (\d+)\n[^]*$/.exec(text.slice(text.lastIndexOf('id: ')))?.[1])
    await until('he is up to date', () => position() >= Number(stream.lastEventId))
    socket.destroy()
  }, 60_000)

  it.each<[string, Partial<EventHubOptions>, object[], number]>([
    ['somebody', { perPrincipal: 2 }, [{}, { address: '192.0.2.2' }, { address: '192.0.2.3' }], 429],
    ['an address', { perAddress: 2 }, [1, 2, 3].map((id) => ({ principal: { kind: 'user', id, name: '' } })), 429],
    ['a process', { inAll: 2 }, [{}, {}, {}], 503],
  ])('refuses one stream too many of %s, and takes it when another has left', async (_what, options, given, status) => {
    await using at = await hubServer({ options })
    const [first] = [await at.stream(given[0]), await at.stream(given[1])]
    expect((await at.stream(given[2])).response.status).toBe(status)
    first.leave()
    await until('it has left', () => at.hub.listeners === 1)
    expect((await at.stream(given[2])).response.status).toBe(200)
  })

  it('ends a stream after a while, so that its credentials are shown again', async () => {
    await using at = await hubServer({ options: { longestMs: 1, proveEveryMs: 10 } })
    const stream = await at.stream()
    await until('it has ended', () => stream.ended)
  })

  it('tells who could not be told that something was missed', async () => {
    let away = false
    const authority = () =>
      away ? Promise.reject(new Error('away')) : core.authorities.of({ kind: 'user', id: 1, name: 'admin' })
    await using at = await hubServer({ authority, options: { heartbeatMs: 20 } })
    const stream = await at.stream()
    away = true
    await mark()
    await until('it is told of', () => at.failures.length > 0)
    away = false
    await until('he is told', () => stream.topics().includes('reload'))
    await mark()
    await until('it goes on', () => marks(stream) === 1)
  })
})

describe('what is streamed', () => {
  it('has a topic for each event that is read, and no other', () => {
    const base = { id: 1n, projectId: null, occurredAt: new Date(0) }
    const message = { $typeName: '', keys: ['read_only'] } as never
    const told = streamedTypes.flatMap((type) => streamed({ ...base, type, message }))
    expect(new Set(told.map(({ topic }) => topic))).toEqual(new Set(topics))
  })
})
