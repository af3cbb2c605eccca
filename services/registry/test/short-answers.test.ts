import { Agent, request, type IncomingHttpHeaders } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { listen, type Listening } from '@haven/runtime'
import { statementsOf } from '@haven/testkit'
import { startRegistry, type Person, type TestRegistry } from './harness.ts'

let registry: TestRegistry
let server: Listening
/** Requests that went the long way. */
let handled = 0
const agent = new Agent({ keepAlive: true, maxSockets: 1 })

beforeAll(async () => {
  registry = await startRegistry()
  const [{ handler, shortcut }] = registry.services as [TestRegistry['services'][0]]
  const counting: typeof handler = (req, res) => {
    handled += 1
    handler(req, res)
  }
  server = await listen(counting, { host: '127.0.0.1', port: 0, shortcut })
})
afterAll(async () => {
  agent.destroy()
  await server.drain(0)
  await registry[Symbol.asyncDispose]()
})

type Answer = { status: number; headers: IncomingHttpHeaders; body: string; long: boolean }

/** Over one connection, with the headers of a client that has none of its own. */
async function ask(
  method: string,
  path: string,
  token: string,
  headers: Record<string, string> = {},
  by = agent,
): Promise<Answer> {
  const before = handled
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        agent: by,
        host: '127.0.0.1',
        port: server.port,
        method,
        path,
        headers: { authorization: `Bearer ${token}`, ...headers },
      },
      (res) => {
        const pieces: Buffer[] = []
        res.on('data', (piece: Buffer) => pieces.push(piece))
        res.on('end', () => {
          const { statusCode: status = 0, headers } = res
          resolve({ status, headers, body: Buffer.concat(pieces).toString('latin1'), long: handled > before })
        })
      },
    )
    sent.on('error', reject).end()
  })
}

/** Asks until an answer comes from memory; fails when none does. */
async function shortAnswer(method: string, path: string, token: string): Promise<Answer> {
  for (let turn = 0; turn < 200; turn += 1) {
    const answer = await ask(method, path, token)
    if (!answer.long) return answer
    await pause(2)
  }
  throw new Error(`${method} ${path} never comes from memory`)
}

async function image(tag: string) {
  const pushed = await registry.pushImage('acme/app', tag)
  expect(pushed.put.status).toBe(201)
  const tokenOf = (who: Person, actions: string) =>
    registry.issue(registry.principals[who]!, `repository:acme/app:${actions}`)
  return { ...pushed, pulling: await tokenOf('gus', 'pull'), pushing: await tokenOf('mia', 'pull,push,delete') }
}

/** A process that nobody asks has forgotten after so long what it remembered. */
const HELD_MS = 400

type Reads = TestRegistry['db']['reads']

/** While the process remembers no answer of a moment ago, and has just read what the owner of the token may do. */
async function unheld<T>(token: string, work: () => Promise<T>): Promise<T> {
  await pause(HELD_MS)
  registry.forget()
  await ask('GET', '/v2/acme/app/tags/list', token)
  return work()
}

/** While reads of the registry are answered by `answer`, which may ask them. */
async function withReads<T>(
  answer: (read: () => Promise<object | null>) => Promise<object | null>,
  work: () => Promise<T>,
) {
  const { reads } = registry.db
  const { one } = reads
  reads.one = ((...asked: Parameters<Reads['one']>) => answer(() => one.apply(reads, asked))) as Reads['one']
  try {
    return await work()
  } finally {
    reads.one = one
  }
}

const flying = async () =>
  Number(/in_flight_requests\{handler="manifest"\} (\d+)/.exec(await registry.metrics[0]!.text())![1])

const alike = (headers: IncomingHttpHeaders) => ({ ...headers, date: '', 'x-request-id': '' })

describe('short answers', () => {
  it('are answered as they are the long way', async () => {
    const { digest, configDigest, pulling } = await image('same')
    for (const [method, path] of [
      ['GET', '/v2/acme/app/manifests/same'],
      ['HEAD', '/v2/acme/app/manifests/same'],
      ['GET', `/v2/acme/app/manifests/${digest}`],
      ['HEAD', `/v2/acme/app/manifests/${digest}`],
      ['GET', `/v2/acme/app/blobs/${configDigest}`],
      ['HEAD', `/v2/acme/app/blobs/${configDigest}`],
    ] as const) {
      const long = await ask(method, path, pulling, { 'x-other': '1' })
      const short = await shortAnswer(method, path, pulling)
      expect([long.long, long.status, short.status]).toEqual([true, 200, 200])
      expect(alike(short.headers)).toEqual(alike(long.headers))
      expect(short.body).toBe(long.body)
      expect(short.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
      expect((await ask(method, path, pulling, { 'x-request-id': 'mine' })).headers['x-request-id']).toBe('mine')
    }
  })

  it('are counted, and told to the audit log', async () => {
    const { pulling, digest } = await image('counted')
    const numberOf = async (sql: string) =>
      (await registry.db.prisma.$queryRawUnsafe<[{ n: number }]>(`select ${sql}`))[0].n
    const pulls = () => numberOf(`pull_count::int as n from artifacts.repositories where path = 'app'`)
    const told = () => numberOf(`count(*)::int as n from events.outbox where type like '%.PullsGathered'`)
    const [pulled, toldOf] = [await pulls(), await told()]
    for (let turn = 0; turn < 10; turn += 1) await shortAnswer('GET', `/v2/acme/app/manifests/${digest}`, pulling)
    const deadline = performance.now() + 10_000
    while ((await pulls()) < pulled + 10 || (await told()) === toldOf) {
      if (performance.now() > deadline) throw new Error(`${await pulls()} pulls, ${await told()} told`)
      await pause(50)
    }
  })

  it('are read when they are not in memory, and answered as they are the long way', async () => {
    const { digest, pulling } = await image('read')
    await ask('GET', '/v2/acme/app/manifests/read', pulling)
    for (const reference of ['read', digest]) {
      const path = `/v2/acme/app/manifests/${reference}`
      for (const method of ['HEAD', 'GET']) {
        const short = await unheld(pulling, () => ask(method, path, pulling))
        const long = await ask(method, path, pulling, { 'x-other': '1' })
        expect([short.long, long.long, short.status, long.status]).toEqual([false, true, 200, 200])
        expect(alike(short.headers)).toEqual(alike(long.headers))
        expect(short.body).toBe(long.body)
      }
    }
  })

  it('are read together when many come together', async () => {
    const tags = Array.from({ length: 16 }, (_, n) => `many${n}`)
    const digests = []
    let pulling = ''
    for (const tag of tags) {
      const pushed = await image(tag)
      digests.push(pushed.digest)
      pulling = pushed.pulling
    }
    const each = tags.map(() => new Agent({ keepAlive: true, maxSockets: 1 }))
    const all = () =>
      Promise.all(tags.map((tag, n) => ask('GET', `/v2/acme/app/manifests/${tag}`, pulling, {}, each[n])))
    await all()
    let answers: Answer[] = []
    const asked = await statementsOf(async () => {
      answers = await unheld(pulling, all)
    })
    for (const one of each) one.destroy()
    expect(answers.map(({ headers }) => headers['docker-content-digest'])).toEqual(digests)
    const reads = asked.filter((text) => text.includes('artifacts.manifests')).length
    expect(reads).toBeGreaterThan(0)
    expect(reads).toBeLessThan(8)
  })

  it('go the long way for what is not there, or not for them', async () => {
    const { pulling, pushing, digest } = await image('not')
    const path = '/v2/acme/app/manifests/not'
    await ask('GET', path, pulling)
    expect((await ask('DELETE', `/v2/acme/app/manifests/${digest}`, pushing)).status).toBe(202)
    await image('stays')
    const elsewhere = await registry.pushImage('other/app', 'hidden', { as: 'admin' })
    for (const reference of ['not', 'never', digest, 'hidden', elsewhere.digest]) {
      for (const method of ['GET', 'HEAD']) {
        const { status, long } = await ask(method, `/v2/acme/app/manifests/${reference}`, pulling)
        expect([reference, status, long]).toEqual([reference, 404, true])
      }
    }
    const { status, long } = await ask('GET', '/v2/other/app/manifests/hidden', pulling)
    expect([status, long]).toEqual([401, true])
  })

  it('tell whoever waited for Postgres that it is away, and do not let him wait once more (F14)', async () => {
    const { pulling, digest } = await image('away')
    const path = `/v2/acme/app/manifests/${digest}`
    await ask('GET', path, pulling)
    const away = (work: () => Promise<Answer>) =>
      withReads(() => Promise.reject(new Error('Connection terminated unexpectedly')), work)
    for (const method of ['GET', 'HEAD']) {
      const short = await unheld(pulling, () => away(() => ask(method, path, pulling)))
      const long = await away(() => ask(method, path, pulling, { 'x-other': '1' }))
      expect([short.long, long.long, short.status, long.status]).toEqual([false, true, 503, 503])
      expect(alike(short.headers)).toEqual(alike(long.headers))
      expect(short.body.replaceAll(/[0-9a-f-]{36}/g, '')).toBe(long.body.replaceAll(/[0-9a-f-]{36}/g, ''))
      expect(short.headers['retry-after']).toMatch(/^\d+$/)
    }
    expect((await ask('GET', path, pulling)).status).toBe(200)
  })

  it('are left alone by clients that leave while Postgres is asked', async () => {
    const { pulling, digest } = await image('leaving')
    const path = `/v2/acme/app/manifests/${digest}`
    await ask('GET', path, pulling)
    const leaving = new Agent({ keepAlive: true, maxSockets: 1 })
    await ask('GET', path, pulling, {}, leaving)
    const asked = Promise.withResolvers<void>()
    const go = Promise.withResolvers<void>()
    const left = await unheld(pulling, () =>
      withReads(
        async (read) => {
          asked.resolve()
          await go.promise
          return read()
        },
        async () => {
          const cut = ask('GET', path, pulling, {}, leaving)
          await asked.promise
          leaving.destroy()
          return cut.catch((error: { code?: string }) => error.code)
        },
      ),
    )
    expect(left).toBe('ECONNRESET')
    expect(await flying()).toBe(1)
    go.resolve()
    const answer = await ask('GET', path, pulling)
    expect([answer.status, answer.headers['docker-content-digest']]).toEqual([200, digest])
    while ((await flying()) > 0) await pause(1)
  })

  it('end when the tag is deleted or moved, at once', async () => {
    for (let turn = 0; turn < 10; turn += 1) {
      const { pulling, pushing, digest } = await image('gone')
      const path = '/v2/acme/app/manifests/gone'
      expect((await shortAnswer('GET', path, pulling)).headers['docker-content-digest']).toBe(digest)
      const moved = await image('gone')
      expect((await ask('GET', path, pulling)).headers['docker-content-digest']).toBe(moved.digest)
      await shortAnswer('GET', path, pulling)
      expect((await ask('DELETE', path, pushing)).status).toBe(202)
      expect((await ask('GET', path, pulling)).status).toBe(404)
    }
  })

  it('are no promise: whoever may push goes the long way for what he may refer to next', async () => {
    const { pushing, configDigest } = await image('promised')
    const path = `/v2/acme/app/blobs/${configDigest}`
    for (let turn = 0; turn < 20; turn += 1) expect((await ask('HEAD', path, pushing)).long).toBe(true)
  })

  it('R10: are for whom it may concern: a token for elsewhere, a forged one and none go the long way, to a refusal', async () => {
    const { pulling } = await image('mine')
    const path = '/v2/acme/app/manifests/mine'
    await shortAnswer('GET', path, pulling)
    const elsewhere = await registry.issue(registry.principals.gus!, 'repository:acme/other:pull')
    const stranger = await registry.issue(registry.principals.stranger!, 'repository:acme/app:pull')
    for (const token of [elsewhere, stranger, `${pulling.slice(0, -4)}AAAA`, '']) {
      const { status, long } = await ask('GET', path, token)
      expect([status, long]).toEqual([401, true])
    }
  })

  it.each([
    '/v2/acme/app/manifests/mine?x=1',
    '/v2/acme/app/manifests/%6dine',
    '/v2/acme//app/manifests/mine',
    '/v2/acme/app/tags/list',
    '/v2/',
  ])('%s goes the long way', async (path) => {
    const { pulling } = await image('mine')
    await shortAnswer('GET', '/v2/acme/app/manifests/mine', pulling)
    expect((await ask('GET', path, pulling)).long).toBe(true)
  })
})
