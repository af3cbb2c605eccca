import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, describe, expect, it } from '@jest/globals'
import { harborEnvelope, problems } from '@haven/errors'
import {
  accessLog,
  answerProblem,
  contextOf,
  createLogger,
  createMetrics,
  encryptionKey,
  enter,
  finish,
  handOverRequest,
  listen,
  open,
  openLogDestination,
  parseJson,
  readBody,
  readJson,
  sameSecret,
  seal,
  serviceApp,
  type RequestContext,
} from './index.ts'
import { exitCodes } from './exit-codes.ts'

const SECRET = 'proxy secret of at least thirty-two'
const folder = mkdtempSync(join(tmpdir(), 'haven-runtime-'))
afterAll(() => rmSync(folder, { recursive: true }))
const toStop: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of toStop.splice(0)) await stop()
})

function logTo(lines: string[], secrets: string[] = []) {
  const destination = openLogDestination({ stdout: { write: (line: string) => lines.push(line) }, secrets })
  return { log: createLogger({ service: 'test', level: 'debug', destination }), destination }
}

async function surface() {
  const lines: string[] = []
  const metrics = createMetrics()
  const app = serviceApp({
    name: 'test',
    log: logTo(lines).log,
    metrics,
    envelope: harborEnvelope,
    trust: { proxySecret: SECRET },
  })
  const seen: RequestContext[] = []
  app.use((req, _res, next) => {
    seen.push(contextOf(req))
    next()
  })
  app.get('/items/:id', (req, res) => void res.json({ id: req.params.id }))
  app.get('/bug', async () => {
    throw new Error('password of the database', { cause: new Error('deeper') })
  })
  app.get('/begun', (_req, res) => {
    res.setHeader('Content-Length', 10)
    res.write('half')
    throw new Error('late')
  })
  app.get('/busy', (_req, res) => {
    res.setHeader('ETag', 'of another body')
    throw problems.tooManyRequests({ retryAfterSeconds: 3 })
  })
  app.post('/json', async (req, res) => void res.json(await readJson(req, { limitBytes: 100_000 })))
  app.post('/small', async (req, res) => void res.json((await readBody(req, { limitBytes: 10 })).length))
  const server = await listen(finish(app), { host: '127.0.0.1', port: 0 })
  toStop.push(() => server.drain(100))
  const url = `http://127.0.0.1:${server.port}`
  return { url, lines, metrics, seen, get: (path: string, init?: RequestInit) => fetch(url + path, init) }
}

describe('serviceApp', () => {
  it('answers problems with the envelope and their headers, and forgets headers of the body that is not sent', async () => {
    const { get } = await surface()
    const busy = await get('/busy')
    expect([busy.status, busy.headers.get('retry-after'), busy.headers.get('etag')]).toEqual([429, '3', null])
    expect(await busy.json()).toEqual({ errors: [{ code: 'TOO_MANY_REQUEST', message: 'too many requests' }] })
    const absent = await get('/none')
    expect([absent.status, await absent.json()]).toEqual([
      404,
      { errors: [{ code: 'NOT_FOUND', message: 'path /none was not found' }] },
    ])
    expect(await (await get('/none', { method: 'HEAD' })).text()).toBe('')
  })

  it('tells the client nothing of a bug and the log everything, under one request id', async () => {
    const { get, lines } = await surface()
    const answer = await get('/bug', { headers: { 'x-request-id': 'r-1' } })
    expect([answer.status, answer.headers.get('x-request-id')]).toEqual([500, 'r-1'])
    expect(await answer.text()).not.toMatch(/password|deeper|Error/)
    expect(JSON.parse(lines.find((line) => line.includes('a request failed'))!)).toMatchObject({
      level: 'error',
      request: 'r-1',
      err: { message: 'password of the database', cause: { message: 'deeper' } },
    })
  })

  it('cuts an answer that fails in the middle', async () => {
    const { get } = await surface()
    await expect(get('/begun').then((res) => res.text())).rejects.toThrow()
  })

  it('counts requests by the template of their route', async () => {
    const { get, metrics } = await surface()
    await Promise.all(['1', '2', '3'].map((id) => get(`/items/${id}`)))
    await get('/none/of/this')
    const text = await metrics.text()
    expect(text).toContain('haven_http_requests_total{service="test",method="GET",route="/items/:id",status="200"} 3')
    expect(text).toContain('route="none",status="404"} 1')
    expect(text).toMatch(/nodejs_eventloop_lag_seconds/)
  })

  it('limits bodies on the first byte over, announced or not', async () => {
    const { get } = await surface()
    expect((await get('/small', { method: 'POST', body: 'x'.repeat(10) })).status).toBe(200)
    expect((await get('/small', { method: 'POST', body: 'x'.repeat(11) })).status).toBe(413)
    const stream = new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(1000)),
    })
    const init: RequestInit & { duplex: string } = { method: 'POST', body: stream, duplex: 'half' }
    expect((await get('/small', init)).status).toBe(413)
  })
})

describe('A76 JSON bodies', () => {
  const status = async (body: string | Uint8Array<ArrayBuffer>) => {
    const { get } = await surface()
    return (await get('/json', { method: 'POST', body })).status
  }

  it.each<[string, string | Uint8Array<ArrayBuffer>, number]>([
    ['depth 32', '['.repeat(32) + ']'.repeat(32), 200],
    ['depth 40', '['.repeat(40) + ']'.repeat(40), 400],
    ['depth 40 000', '['.repeat(40_000) + ']'.repeat(40_000), 400],
    ['20 000 entries', `[${'0,'.repeat(20_000)}0]`, 400],
    ['too long', `"${'a'.repeat(100_001)}"`, 413],
    ['no JSON', '{', 422],
    ['NaN', 'NaN', 422],
    ['BOM', '\ufeff{}', 422],
    ['invalid UTF-8', new Uint8Array([0x22, 0xff, 0x22]), 422],
    ['UTF-16', new Uint8Array([0xff, 0xfe, 0x7b, 0, 0x7d, 0]), 422],
    ['A77 NUL in a text', String.raw`{"a":["\\\u0000"]}`, 400],
    ['A77 NUL in a key', String.raw`{"\u0000":1}`, 400],
    ['A77 what only looks like NUL', String.raw`{"a":"\\u0000"}`, 200],
  ])('%s', async (_, body, expected) => {
    expect(await status(body)).toBe(expected)
  })

  it('keeps __proto__ as data', () => {
    const parsed = parseJson(Buffer.from('{"__proto__":{"polluted":1}}'))
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
    expect(Object.keys(parsed as object)).toEqual(['__proto__'])
    expect(parseJson(Buffer.alloc(0))).toBeUndefined()
  })
})

describe('contextOf', () => {
  const forwarded = {
    'x-request-id': 'from-the-proxy',
    'x-forwarded-for': '203.0.113.9',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'registry.example',
    'x-haven-can-send': '1',
  }

  it('A50 takes the facts of a request from headers only when the secret proves the proxy', async () => {
    const { get, seen } = await surface()
    await get('/items/1', { headers: { ...forwarded, 'x-haven-proxy': SECRET } })
    await get('/items/1', { headers: { ...forwarded, 'x-haven-proxy': `${SECRET}.` } })
    await get('/items/1', { headers: forwarded })
    expect(seen[0]).toMatchObject({
      requestId: 'from-the-proxy',
      clientAddress: '203.0.113.9',
      scheme: 'https',
      host: 'registry.example',
      handOver: true,
    })
    for (const context of seen.slice(1)) {
      expect(context).toMatchObject({ clientAddress: '127.0.0.1', scheme: 'http', handOver: false })
      expect(context.host).toMatch(/^127/)
    }
  })

  it('takes them as values when the proxy is in this process', async () => {
    const lines: string[] = []
    const gate = { name: 'test', log: logTo(lines).log, metrics: createMetrics(), trust: { proxySecret: null } }
    const server = await listen(
      (req, res) => {
        handOverRequest(req, {
          requestId: 'given',
          clientAddress: '203.0.113.9',
          scheme: 'https',
          host: 'h',
          log: gate.log,
        })
        const { requestId, clientAddress, scheme, log, handOver } = enter(req, res, gate)
        log.info('inside')
        res.end(JSON.stringify([requestId, clientAddress, scheme, handOver]))
      },
      { host: '127.0.0.1', port: 0 },
    )
    toStop.push(() => server.drain(100))
    expect(await (await fetch(`http://127.0.0.1:${server.port}`)).json()).toEqual([
      'given',
      '203.0.113.9',
      'https',
      false,
    ])
    expect(JSON.parse(lines[0]!)).toMatchObject({ request: 'given', msg: 'inside' })
  })

  it('compares secrets', () => {
    expect([sameSecret('a', 'a'), sameSecret('a', 'b'), sameSecret('', ''), sameSecret('aa', 'a')]).toEqual([
      true,
      false,
      false,
      false,
    ])
  })
})

describe('the log', () => {
  it('R15 hides secrets by key and by value, in text, fields, errors and Basic credentials', () => {
    const lines: string[] = []
    const { log, destination } = logTo(lines, ['known "secret" value'])
    destination.hide(['read later on'])
    log.info(
      { password: 'abc1', nested: [{ authorization: 'abc1', 'X-Api-Key': 'abc1', newPassword: 'abc1' }], secret: null },
      'known "secret" value',
    )
    log.error({ err: new Error('read later on', { cause: new Error('known "secret" value') }) })
    log.child({ token: 'abc1' }).info('child')
    log.info(`Basic ${Buffer.from('known "secret" value').toString('base64')}`)
    const text = lines.join('')
    for (const hidden of ['abc1', 'known', 'read later', Buffer.from('known "secret" value').toString('base64')])
      expect(text).not.toContain(hidden)
    expect(text.match(/\*\*\*/g)!.length).toBeGreaterThanOrEqual(9)
    expect(JSON.parse(lines[0]!)).toMatchObject({ secret: null })
  })

  it('R15 writes one line whatever is in it, and cuts values at 2 KiB', () => {
    const lines: string[] = []
    const { log } = logTo(lines)
    const circular: Record<string, unknown> = { name: 'a\n\u001b\u009b\u2028\u202e' }
    circular.self = circular
    log.info(
      { circular, big: 'x'.repeat(1e6), bytes: Buffer.alloc(1e6), many: Array(1000).fill(1), hasOwnProperty: 1 },
      'y'.repeat(1e6),
    )
    expect(lines).toHaveLength(1)
    expect(lines[0]!.length).toBeLessThan(8000)
    // oxlint-disable-next-line no-control-regex -- the point of the check
    expect(lines[0]!.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/)
    expect(JSON.parse(lines[0]!)).toMatchObject({ bytes: '1000000 bytes', circular: { name: circular.name } })
  })
})

describe('the access log', () => {
  const given = {
    request: 'r-1',
    client: '203.0.113.9',
    method: 'GET',
    url: '/v2/library/app/manifests/1',
    status: 200,
    bytes: 1234,
    ms: 0.125,
    to: 'registry',
    agent: 'docker/27',
  }
  const withoutTime = (line: string | undefined) => line?.replace(/"time":"[^"]+"/, '')

  it.each([
    ['as usual', {}],
    ['without an agent', { agent: undefined }],
    ['with quotes and backslashes', { agent: '"\\"', url: '/v2/"x\\' }],
    ['with line breaks and escapes of a terminal', { agent: 'a\nb\u001b[31m\u0085\u202e\ud800' }],
    ['with what forges another field', { agent: '","status":500,"x":"' }],
    ['with long texts', { url: `/${'x'.repeat(5000)}`, agent: 'ü'.repeat(3000) }],
    ['with a secret', { url: '/v2/known secret value' }],
  ])('R15 writes what the logger would: %s', (_, change) => {
    const lines: string[] = []
    const { log } = logTo(lines, ['known secret value'])
    const line = { ...given, ...change }
    accessLog(log)(line)
    log.info(line, 'access')
    expect(withoutTime(lines[0])).toBe(withoutTime(lines[1]))
    expect(JSON.parse(lines[0]!)).toMatchObject({ service: 'test', status: 200, msg: 'access' })
    expect(lines.join('')).not.toContain('known')
  })

  it('writes nothing below its level', () => {
    const lines: string[] = []
    const destination = openLogDestination({ stdout: { write: (text: string) => lines.push(text) } })
    accessLog(createLogger({ service: 'test', level: 'warn', destination }))(given)
    expect(lines).toEqual([])
  })
})

describe('seal', () => {
  const key = encryptionKey(randomBytes(32).toString('base64'))

  it('reads back, differs each time, and notices any change', () => {
    const sealed = seal(key, 'püblic? no')
    expect(open(key, sealed)).toBe('püblic? no')
    expect(seal(key, 'püblic? no')).not.toBe(sealed)
    expect(open(key, seal(key, ''))).toBe('')
    const bytes = Buffer.from(sealed.slice(3), 'base64url')
    for (let i = 0; i < bytes.length; i += 1) {
      const changed = Buffer.from(bytes)
      changed[i]! ^= 1
      expect(() => open(key, `v1.${changed.toString('base64url')}`)).toThrow()
    }
    expect(() => open(randomBytes(32), sealed)).toThrow()
    for (const wrong of ['', 'v2.abc', 'v1.', sealed.slice(0, 20)]) expect(() => open(key, wrong)).toThrow()
  })

  it.each(['', 'short', randomBytes(31).toString('base64'), `${randomBytes(32).toString('base64')}!`, 'x'.repeat(44)])(
    'takes no key such as %j',
    (text) => {
      expect(() => encryptionKey(text)).toThrow(/HAVEN_ENCRYPTION_KEY/)
    },
  )
})

it('answerProblem cannot answer twice', async () => {
  const gate = {
    name: 'test',
    log: createLogger({ service: 'test', level: 'silent' }),
    metrics: createMetrics(),
    trust: { proxySecret: null },
  }
  const server = await listen(
    (req, res) => {
      enter(req, res, gate)
      answerProblem(req, res, problems.notFound({ message: 'first' }), harborEnvelope)
      answerProblem(req, res, new Error('second'), harborEnvelope)
    },
    { host: '127.0.0.1', port: 0 },
  )
  toStop.push(() => server.drain(100))
  expect((await fetch(`http://127.0.0.1:${server.port}`)).status).toBe(404)
})

describe('run', () => {
  const index = fileURLToPath(new URL('./index.ts', import.meta.url))
  const config = fileURLToPath(new URL('../../config/src/index.ts', import.meta.url))
  const main = join(folder, 'main.ts')
  writeFileSync(
    main,
    `import { run, serviceSettings } from ${JSON.stringify(index)}
     import { defineConfig } from ${JSON.stringify(config)}
     await run(({ log }) => ({
       name: 'demo',
       checks: { thing: async () => {} },
       handler: (req, res) => {
         if (req.url === '/reject') { void Promise.reject(new Error('a bug')); res.end('ok') }
         else if (req.url === '/slow') setTimeout(() => res.end('finished'), 500)
         else res.end(req.url)
       },
       async [Symbol.asyncDispose]() { log.info('closed') },
     }), defineConfig('DEMO', serviceSettings({ port: 1 })))`,
  )

  function start(env: Record<string, string>) {
    const child = spawn(process.execPath, [main], {
      env: { PATH: process.env.PATH, HAVEN_PROXY_SECRET: SECRET, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = { text: '' }
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output.text += chunk.toString()))
    const exit = new Promise<number | null>((resolve) => child.once('exit', resolve))
    toStop.push(async () => {
      child.kill('SIGKILL')
      await exit
    })
    const ready = (async () => {
      for (const end = Date.now() + 20_000; ;) {
        const ports = /"ports":\[(\d+)\]/.exec(output.text)
        if (ports) return `http://127.0.0.1:${ports[1]}`
        if (Date.now() > end || child.exitCode !== null) throw new Error(`it did not start: ${output.text}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    })()
    ready.catch(() => {})
    return { child, output, exit, ready }
  }

  it('is healthy and ready, and at SIGTERM finishes what it accepted and exits with 0', async () => {
    const { child, output, exit, ready } = start({ DEMO_PORT: '0' })
    const url = await ready
    expect(await (await fetch(`${url}/healthz`)).text()).toBe('ok\n')
    expect(await (await fetch(`${url}/readyz`)).json()).toEqual({
      ready: true,
      state: 'up',
      components: { thing: 'ok' },
    })
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('process_cpu_seconds_total')
    const slow = fetch(`${url}/slow`)
    await new Promise((resolve) => setTimeout(resolve, 100))
    child.kill('SIGTERM')
    expect(await (await slow).text()).toBe('finished')
    expect(await exit).toBe(exitCodes.ok)
    expect(output.text).toMatch(/closed[\s\S]*stopped/)
    expect(output.text).not.toContain(SECRET)
  })

  it('R16 ends through its drain with a code of its own when a promise is rejected and nobody listens', async () => {
    const { exit, output, ready } = start({ DEMO_PORT: '0' })
    expect(await (await fetch(`${await ready}/reject`)).text()).toBe('ok')
    expect(await exit).toBe(exitCodes.bug)
    expect(output.text).toMatch(/"level":"fatal"[\s\S]*a bug[\s\S]*closed/)
  })

  it('R8 does not start without a secret, with a short one or a known one: exit 78 and the name', async () => {
    for (const secret of ['', 'short', 'not-a-secure-string']) {
      const { exit, output } = start({ HAVEN_PROXY_SECRET: secret })
      expect(await exit).toBe(78)
      expect(output.text).toContain('HAVEN_PROXY_SECRET')
      if (secret !== '') expect(output.text).not.toContain(secret === 'short' ? '"short"' : secret)
    }
  })

  it('says which port is taken and by which setting to choose another: exit 20', async () => {
    const taken = await listen((_req, res) => void res.end(), { host: '127.0.0.1', port: 0 })
    toStop.push(() => taken.drain(10))
    const { exit, output } = start({ DEMO_PORT: String(taken.port) })
    expect(await exit).toBe(exitCodes.portInUse)
    expect(output.text).toContain(`127.0.0.1:${taken.port} is in use`)
    expect(output.text).toContain('DEMO_PORT')
  })
})
