import { createSocket } from 'node:dgram'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, afterEach, describe, expect, it } from '@jest/globals'
import { createLogger, createMetrics, listen, openLogDestination } from '@haven/runtime'
import { Forwarder, syslogMessage } from './forwarder.ts'
import { keep, readLine } from './line.ts'
import { LogFiles, type RotationRules } from './log-files.ts'
import { createLogCollector, type LogCollectorDeps } from './service.ts'
import { readSyslog, SyslogFraming } from './syslog.ts'

const SECRET = 'thirty-two characters of a secret'
const root = mkdtempSync(join(tmpdir(), 'haven-logs-'))
const log = createLogger({ service: 'test', level: 'silent' })
const rules: RotationRules = { maxFileBytes: 1e9, maxAgeMs: 1e9, keep: 100, maxTotalBytes: 1e9 }
const toStop: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of toStop.splice(0).reverse()) await stop()
})
afterAll(() => {
  rmSync(root, { recursive: true })
})
let folders = 0
const newFolder = () => join(root, String((folders += 1)))

async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  for (const end = Date.now() + ms; !(await condition());) {
    if (Date.now() > end) throw new Error(`it did not happen within ${ms} ms: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function collector(options: Partial<RotationRules> & Pick<LogCollectorDeps, 'forwardTo' | 'syslog'> = {}) {
  const folder = newFolder()
  const { forwardTo, syslog, ...changed } = options
  const files = await LogFiles.open(folder, { ...rules, ...changed }, log)
  const service = createLogCollector({
    files,
    secret: SECRET,
    log,
    metrics: createMetrics(),
    trust: { proxySecret: null },
    ...(forwardTo && { forwardTo }),
    ...(syslog && { syslog }),
  })
  const server = await listen(service.handler, { host: '127.0.0.1', port: 0 })
  await service.start?.()
  toStop.push(
    async () => service[Symbol.asyncDispose](),
    () => server.drain(100),
  )
  const url = `http://127.0.0.1:${server.port}`
  const authorization = `Bearer ${SECRET}`
  return {
    folder,
    files,
    service,
    url,
    post: (body: string, headers: Record<string, string> = {}) =>
      fetch(`${url}/v1/lines`, { method: 'POST', body, headers: { authorization, ...headers } }),
    async search(query: Record<string, string> = {}) {
      const answer = await fetch(`${url}/v1/search?${new URLSearchParams(query)}`, { headers: { authorization } })
      const text = await answer.text()
      const lines = answer.ok ? text.split('\n').filter((line) => line !== '') : []
      return { status: answer.status, text, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
    },
    read: (name: string) => readFileSync(join(folder, name), 'utf8'),
  }
}

const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString()
const line = (fields: Record<string, unknown>) =>
  `${JSON.stringify({ level: 'info', time: at(0), service: 'core', msg: 'x', ...fields })}\n`

describe('POST /v1/lines', () => {
  it('keeps one file a service', async () => {
    const c = await collector()
    const answer = await c.post(line({ msg: 'a' }) + line({ service: 'registry', msg: 'b' }) + line({ msg: 'c' }))
    expect(answer.status).toBe(204)
    expect(
      c
        .read('core.log')
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text).msg),
    ).toEqual(['a', 'c'])
    expect(JSON.parse(c.read('registry.log'))).toEqual({ level: 'info', time: at(0), service: 'registry', msg: 'b' })
    expect(
      await (await fetch(`${c.url}/v1/services`, { headers: { authorization: `Bearer ${SECRET}` } })).json(),
    ).toEqual(['core', 'registry'])
  })

  it.each([undefined, 'Bearer wrong', `Basic ${SECRET}`, 'Bearer '])(
    'asks for the secret (%s)',
    async (authorization) => {
      const c = await collector()
      const headers = authorization === undefined ? {} : { authorization }
      for (const [path, method] of [
        ['/v1/lines', 'POST'],
        ['/v1/search', 'GET'],
      ] as const) {
        expect((await fetch(c.url + path, { method, headers })).status).toBe(401)
      }
      expect(readdirSync(c.folder)).toEqual([])
    },
  )

  it.each(['../../x', '/etc/passwd', 'a/b', 'A', '', 'a.log', 'a\n', 'x'.repeat(33), '__proto__', null, 7, {}])(
    'A78 makes no file of the name %j',
    async (service) => {
      const c = await collector()
      expect((await c.post(line({ service }))).status).toBe(204)
      expect(readdirSync(c.folder)).toEqual(['unreadable.log'])
      expect(JSON.parse(c.read('unreadable.log')).saysItIs).toEqual(service === null ? null : expect.anything())
    },
  )

  it('A78 keeps one line one line, cuts values and escapes what terminals obey', async () => {
    const c = await collector()
    const evil = 'a\nb\r\u001b[31m\u009b\u2028\u202e'
    await c.post(line({ msg: evil, agent: 'y'.repeat(1_000_000) }))
    await c.post('not json \u001b\n[1]\n"x"\n')
    const text = c.read('core.log')
    // oxlint-disable-next-line no-control-regex -- the point of the check
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u202e]/)
    expect(text.split('\n')).toHaveLength(2)
    expect(JSON.parse(text)).toMatchObject({
      msg: evil,
      agent: expect.stringMatching(/^y{2048}… \(1000000 characters\)$/),
    })
    expect(c.read('unreadable.log').trim().split('\n')).toHaveLength(3)
  })

  describe('an access line', () => {
    const fields = {
      level: 'info',
      time: '2026-11-25T12:00:00.000Z',
      service: 'proxy',
      request: 'r-1',
      client: '203.0.113.9',
      method: 'GET',
      url: '/v2/library/app/manifests/1?a=[1]',
      status: 200,
      bytes: 1234,
      ms: 0.25,
      to: 'registry',
      agent: 'docker/27 (linux)',
      msg: 'access',
    }

    it('is kept as it came when nothing in it can do harm, as it would be if it were read and written anew', () => {
      for (const change of [{}, { agent: undefined }, { ms: 12, agent: '' }, { ms: 0 }]) {
        const sent = JSON.stringify({ ...fields, ...change })
        expect(readLine(sent)).toMatchObject({
          service: 'proxy',
          text: `${sent}\n`,
          fields: JSON.parse(sent) as object,
        })
        expect(JSON.parse(keep(JSON.parse(sent) as Record<string, unknown>).text)).toEqual(JSON.parse(sent))
      }
    })

    it.each([
      ['a text with an escape', { url: '/v2/"\\' }],
      ['a text that a terminal obeys', { agent: '\u009b31m' }],
      ['a field beside them', { password: 'abc' }],
      ['a field of another kind', { agent: { token: 'abc' } }],
      ['another name of a service', { service: '../x' }],
      ['a value that is too long', { url: `/${'y'.repeat(3000)}` }],
      ['a number that is none', { status: 'x' }],
    ])('A78 is read and written anew when it has %s', (_, change) => {
      const { service, ...rest } = { ...fields, ...change }
      const sent = JSON.stringify({ ...fields, ...change })
      const expected =
        service === 'proxy' ? keep({ service, ...rest }) : keep({ ...rest, service: 'unreadable', saysItIs: service })
      const read = readLine(sent)
      expect([read.service, JSON.parse(read.text)]).toEqual([expected.service, JSON.parse(expected.text)])
      // oxlint-disable-next-line no-control-regex -- the point of the check
      expect(read.text).not.toMatch(/[\u007f-\u009f]|abc|y{2049}/)
    })
  })

  it('hides what is secret by its key', async () => {
    const c = await collector()
    await c.post(
      line({
        req: { headers: { authorization: 'Basic abc', 'x-api-key': 'abc' } },
        newPassword: 'abc',
        access_token: 'abc',
      }),
    )
    expect(c.read('core.log')).not.toContain('abc')
  })

  it('tells of lines that a service had to drop', async () => {
    const c = await collector()
    await c.post(line({}), { 'x-haven-dropped': '12' })
    expect(JSON.parse(c.read('core.log').split('\n')[0]!)).toMatchObject({ level: 'warn', dropped: 12 })
  })

  it('refuses more than 4 MiB at once', async () => {
    const c = await collector()
    expect((await c.post('x'.repeat(5 * 1024 * 1024))).status).toBe(413)
  })

  it('says when the disk cannot be written, and in its readiness', async () => {
    const c = await collector()
    rmSync(c.folder, { recursive: true })
    expect((await c.post(line({}))).status).toBe(500)
    await expect(c.service.checks.files!()).rejects.toThrow(/ENOENT/)
  })
})

describe('rotation', () => {
  it('by size: compressed, whole, in order, at most so many', async () => {
    const c = await collector({ maxFileBytes: 2000, keep: 3 })
    for (let i = 0; i < 100; i += 1) await c.files.append('core', line({ n: i, time: at(i) }))
    await c.files.settled()
    const rotated = readdirSync(c.folder)
      .filter((name) => /^core\.\d{8}T\d{9}Z\.log\.gz$/.test(name))
      .sort()
    expect(rotated).toHaveLength(3)
    expect(readdirSync(c.folder)).toHaveLength(4)
    const texts = [
      ...rotated.map((name) => gunzipSync(readFileSync(join(c.folder, name))).toString()),
      c.read('core.log'),
    ]
    for (const text of texts) expect(text.length).toBeLessThanOrEqual(2000)
    const numbers = texts
      .join('')
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text).n as number)
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => 100 - numbers.length + i))
  })

  it('by age', async () => {
    const c = await collector({ maxAgeMs: 50 })
    await c.files.append('core', line({ n: 1 }))
    await new Promise((resolve) => setTimeout(resolve, 80))
    await c.files.append('core', line({ n: 2 }))
    await c.files.settled()
    expect(readdirSync(c.folder)).toHaveLength(2)
    expect(JSON.parse(c.read('core.log')).n).toBe(2)
  })

  it('under a total: the oldest of any service goes first', async () => {
    const c = await collector({ maxFileBytes: 500, maxTotalBytes: 1000 })
    for (let i = 0; i < 40; i += 1)
      await c.files.append(i % 2 ? 'core' : 'registry', line({ noise: Math.random().toString(36).repeat(20) }))
    await c.files.settled()
    const rotated = readdirSync(c.folder).filter((name) => name.endsWith('.gz'))
    expect(rotated.reduce((sum, name) => sum + statSync(join(c.folder, name)).size, 0)).toBeLessThanOrEqual(1000)
  })

  it('finishes what a killed process left: plain rotated files and parts of compressed ones', async () => {
    const folder = newFolder()
    const first = await LogFiles.open(folder, { ...rules, maxFileBytes: 100 }, log)
    await first.append('core', line({ n: 1 }))
    await first[Symbol.asyncDispose]()
    const { renameSync, writeFileSync } = await import('node:fs')
    renameSync(join(folder, 'core.log'), join(folder, 'core.20260101T000000000Z.log'))
    writeFileSync(join(folder, 'core.20260101T000000000Z.log.gz.part'), 'half')
    const second = await LogFiles.open(folder, rules, log)
    await second.settled()
    expect(readdirSync(folder)).toEqual(['core.20260101T000000000Z.log.gz'])
    await second[Symbol.asyncDispose]()
  })

  it('opens no files without end', async () => {
    const c = await collector()
    for (let i = 0; i < 100; i += 1) await c.files.append(`s${i}`, line({}))
    expect(readdirSync(c.folder).length).toBeLessThanOrEqual(65)
  })
})

describe('GET /v1/search', () => {
  it('gives the newest first, across services and rotated files', async () => {
    const c = await collector({ maxFileBytes: 1000 })
    for (let i = 0; i < 60; i += 1) {
      await c.files.append(
        i % 3 ? 'core' : 'registry',
        line({ service: i % 3 ? 'core' : 'registry', n: i, time: at(i) }),
      )
    }
    const numbers = (found: { lines: Record<string, unknown>[] }) => found.lines.map(({ n }) => n)
    expect(numbers(await c.search({ limit: '50' }))).toEqual(Array.from({ length: 50 }, (_, i) => 59 - i))
    expect(numbers(await c.search({ service: 'registry', limit: '4' }))).toEqual([57, 54, 51, 48])
    expect(numbers(await c.search({ from: at(10), to: at(13) }))).toEqual([13, 12, 11, 10])
    await c.files.settled()
    expect(numbers(await c.search({ limit: '1000' }))).toEqual(Array.from({ length: 60 }, (_, i) => 59 - i))
  })

  it('reads a file once that stands there plain and compressed', async () => {
    const c = await collector({ maxFileBytes: 100 })
    for (let i = 0; i < 3; i += 1) await c.files.append('core', line({ service: 'core', n: i, time: at(i) }))
    await c.files.settled()
    for (const { path, compressed } of await c.files.list()) {
      if (compressed) writeFileSync(path.replace(/\.gz$/, ''), gunzipSync(readFileSync(path)))
    }
    expect((await c.search({})).lines.map(({ n }) => n)).toEqual([2, 1, 0])
  })

  it('by request, level and text, together', async () => {
    const c = await collector()
    await c.post(
      line({ request: 'r1', level: 'debug', msg: 'one', time: at(1) }) +
        line({ request: 'r1', level: 'error', msg: 'TWO', time: at(2) }) +
        line({ request: 'r2', level: 'error', msg: 'two', time: at(3) }) +
        line({ note: '"request":"r1"', level: 'fatal', msg: 'forged', time: at(4) }) +
        line({ request: 'r3', trace: 'b7', level: 'info', msg: 'traced', time: at(5) }),
    )
    const texts = async (query: Record<string, string>) => (await c.search(query)).lines.map(({ msg }) => msg)
    expect(await texts({ request: 'r1' })).toEqual(['TWO', 'one'])
    expect(await texts({ request: 'r1', level: 'warn' })).toEqual(['TWO'])
    expect(await texts({ request: 'b7' })).toEqual(['traced'])
    expect(await texts({ text: 'two' })).toEqual(['two', 'TWO'])
    expect(await texts({ text: 'two', request: 'r2' })).toEqual(['two'])
    expect(await texts({ level: 'fatal' })).toEqual(['forged'])
    expect(await texts({ service: 'nobody' })).toEqual([])
  })

  it.each([
    { limit: '0' },
    { limit: '1001' },
    { limit: 'x' },
    { level: 'loud' },
    { from: 'yesterday' },
    { service: '../core' },
  ])('refuses %j', async (query) => {
    const c = await collector()
    const { status, text } = await c.search(query)
    expect(status).toBe(400)
    expect(text).toContain(Object.keys(query)[0])
  })

  it('forgets a search whose client went away', async () => {
    const c = await collector()
    await c.files.append('core', line({ filler: 'x'.repeat(1500) }).repeat(1000))
    const fds = () => readdirSync('/proc/self/fd').length
    const before = fds()
    for (let i = 0; i < 20; i += 1) {
      const socket = connect(Number(new URL(c.url).port), '127.0.0.1', () => {
        socket.write(`GET /v1/search?limit=1000 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${SECRET}\r\n\r\n`)
        socket.once('data', () => socket.resetAndDestroy())
      })
      socket.on('error', () => {})
      await new Promise((resolve) => socket.once('close', resolve))
    }
    await until(() => fds() <= before + 3)
    expect((await c.search({ limit: '1' })).lines).toHaveLength(1)
  })
})

describe('the transport of a service', () => {
  it('sends batches to the collector and keeps stdout quiet', async () => {
    const c = await collector()
    const stdout: string[] = []
    const destination = openLogDestination({
      collectorUrl: c.url,
      collectorSecret: SECRET,
      flushAfterMs: 10,
      stdout: { write: (text) => stdout.push(text) },
    })
    const logger = createLogger({ service: 'core', destination })
    for (let i = 0; i < 500; i += 1) logger.info({ i }, 'line')
    await until(async () => (await c.search({ limit: '1000' })).lines.length === 500)
    expect((await c.search({ limit: '1000' })).lines.map(({ i }) => i).sort((a, b) => Number(a) - Number(b))).toEqual([
      ...Array(500).keys(),
    ])
    await destination[Symbol.asyncDispose]()
    expect(stdout).toEqual([])
  })

  it('writes to stdout while the collector is away, keeps a bounded number, and says how many it dropped', async () => {
    const gone = await listen(() => {}, { host: '127.0.0.1', port: 0 })
    await gone.drain(0)
    const stdout: string[] = []
    const destination = openLogDestination({
      collectorUrl: `http://127.0.0.1:${gone.port}`,
      collectorSecret: SECRET,
      flushAfterMs: 10,
      bufferBytes: 3000,
      stdout: { write: (text) => stdout.push(text) },
    })
    const logger = createLogger({ service: 'core', destination })
    logger.info('first')
    await until(() => {
      logger.info('probe')
      return stdout.length > 0
    })
    for (let i = 0; i < 100; i += 1) logger.info({ i }, 'while away')
    expect(stdout.filter((text) => text.includes('while away'))).toHaveLength(100)
    expect(destination.dropped).toBeGreaterThan(50)

    const folder = newFolder()
    const files = await LogFiles.open(folder, rules, log)
    const service = createLogCollector({
      files,
      secret: SECRET,
      log,
      metrics: createMetrics(),
      trust: { proxySecret: null },
    })
    const back = await listen(service.handler, { host: '127.0.0.1', port: gone.port })
    await until(
      () =>
        readdirSync(folder).includes('core.log') && readFileSync(join(folder, 'core.log'), 'utf8').includes('"i":99'),
    )
    const text = readFileSync(join(folder, 'core.log'), 'utf8')
    expect(text).toMatch(/"dropped":\d+/)
    await destination[Symbol.asyncDispose]()
    await back.drain(100)
    await service[Symbol.asyncDispose]()
  })
})

describe('syslog', () => {
  const now = () => new Date(at(9))

  it.each([
    [
      '<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su 12 ID47 - \ufeffhello',
      {
        level: 'fatal',
        time: '2003-10-11T22:14:15.003Z',
        host: 'mymachine.example.com',
        app: 'su',
        process: '12',
        id: 'ID47',
        msg: 'hello',
      },
    ],
    [
      '<165>1 2003-10-11T22:14:15Z h evntslog - ID47 [a@1 k="v\\"]\\\\" i="2"][b@2] text',
      { level: 'info', app: 'evntslog', msg: 'text' },
    ],
    ['<11>1 - - - - - -', { level: 'error', time: at(9), msg: '' }],
    [
      '<13>Oct 11 22:14:15 host app[42]: old',
      { level: 'info', time: at(9), host: 'host', app: 'app', process: '42', msg: 'old' },
    ],
    ['<12>tag: no header', { level: 'warn', app: 'tag', msg: 'no header' }],
    ['no priority at all', { level: 'info', msg: 'no priority at all' }],
    ['<34>1 2003-10-11T22:14:15Z h ../../x - - - \u001b[31mred\nline', { app: '../../x', msg: '\u001b[31mred\nline' }],
  ])('reads %j', (message, expected) => {
    const { fields, text } = readSyslog(message, '10.0.0.1', now)
    expect(fields).toMatchObject({ service: 'syslog', from: '10.0.0.1', ...expected })
    expect(text.split('\n')).toHaveLength(2)
  })

  it('cuts a stream by both framings, however it arrives', () => {
    const stream = Buffer.from('5 abcde<1>line\n7 a\nb\ncdé'.replace('é', 'e') + '\n<2>x\n')
    for (const size of [1, 2, 3, 7, 100]) {
      const framing = new SyslogFraming()
      const found: string[] = []
      for (let i = 0; i < stream.length; i += size) found.push(...framing.push(stream.subarray(i, i + size)))
      expect(found).toEqual(['abcde', '<1>line', 'a\nb\ncde', '<2>x'])
    }
    expect(() => new SyslogFraming().push(Buffer.from('999999 x'))).toThrow(/too long/)
    expect(() => new SyslogFraming().push(Buffer.alloc(20_000, 'a'))).toThrow(/end/)
  })

  it('receives over TCP and UDP, and cuts off what is no syslog', async () => {
    const c = await collector({ syslog: { host: '127.0.0.1', port: 0 } })
    const port = c.service.syslogPort!
    const tcp = connect(port, '127.0.0.1', () => tcp.end('<11>1 - h app - - - over tcp\n'))
    const udp = createSocket('udp4')
    udp.send('<11>over: udp', port, '127.0.0.1', () => udp.close())
    const bad = connect(port, '127.0.0.1', () => bad.write('999999 '))
    bad.on('error', () => {})
    await new Promise((resolve) => bad.once('close', resolve))
    await until(async () => (await c.search({ service: 'syslog' })).lines.length === 2)
    expect((await c.search({ service: 'syslog', level: 'error' })).lines.map(({ msg }) => msg).sort()).toEqual([
      'over tcp',
      'udp',
    ])
  })
})

describe('forwarding', () => {
  const kept = (n: number) => keep({ service: 'core', level: 'warn', msg: `n${n}`, time: at(n % 60), request: 'r"1]' })

  async function receiver(port = 0) {
    const got: string[] = []
    const sockets = new Set<Socket>()
    const server: Server = createServer((socket) => {
      sockets.add(socket)
      const framing = new SyslogFraming()
      socket.on('error', () => {})
      socket.on('data', (chunk) => got.push(...framing.push(chunk)))
    })
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
    return {
      got,
      port: (server.address() as AddressInfo).port,
      async stop() {
        for (const socket of sockets) socket.destroy()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  }

  it('writes RFC 5424, which reads back as what it was', () => {
    const message = syslogMessage(kept(1), 'host name')
    expect(message).toMatch(
      /^<132>1 2026-01-01T00:00:01.000Z hostname haven-core - - \[haven@32473 request="r\\"1\\\]"\] \{"level"/,
    )
    const { fields } = readSyslog(message, 'x')
    expect(fields).toMatchObject({ app: 'haven-core', level: 'warn', time: at(1) })
    expect(readLine(fields.msg).fields).toMatchObject({ msg: 'n1', request: 'r"1]' })
  })

  it('over TCP by octet counting; goes on after the receiver came back; bounded meanwhile', async () => {
    const first = await receiver()
    const forwarder = new Forwarder({ url: `tcp://127.0.0.1:${first.port}`, log, retryMs: 10, bufferBytes: 20_000 })
    toStop.push(async () => forwarder[Symbol.asyncDispose]())
    for (let n = 0; n < 50; n += 1) forwarder.send(kept(n))
    await until(() => first.got.length === 50)
    expect(first.got[49]).toContain('n49')
    await first.stop()
    // The kernel takes what is written before it learns that nobody reads: what counts is that nothing queues without end.
    for (let n = 0; n < 5000; n += 1) {
      forwarder.send(kept(n))
      if (n % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    expect(forwarder.dropped).toBeGreaterThan(1000)
    const second = await receiver(first.port)
    await until(() => second.got.some((message) => message.includes('n4999')))
    expect(second.got.length).toBeLessThan(200)
    toStop.push(second.stop)
  })

  it('over UDP, one line a datagram, cut to what fits', async () => {
    const udp = createSocket('udp4')
    const got: Buffer[] = []
    udp.on('message', (message) => got.push(message))
    await new Promise<void>((resolve) => udp.bind(0, '127.0.0.1', resolve))
    const forwarder = new Forwarder({ url: `udp://127.0.0.1:${udp.address().port}`, log })
    forwarder.send(kept(1))
    forwarder.send(keep({ service: 'core', msg: 'ü'.repeat(2000) }))
    await until(() => got.length === 2)
    expect(got[0]!.toString()).toContain('"msg":"n1"')
    expect(got[1]!.length).toBeLessThanOrEqual(1200)
    expect(got[1]!.toString()).not.toContain('\ufffd')
    await forwarder[Symbol.asyncDispose]()
    udp.close()
  })

  it('every line that is kept is forwarded', async () => {
    const to = await receiver()
    toStop.push(to.stop)
    const c = await collector({ forwardTo: { url: `tcp://127.0.0.1:${to.port}` } })
    await c.post(line({ msg: 'first' }) + line({ service: 'registry', msg: 'second' }))
    await until(() => to.got.length === 2)
    expect(to.got[1]).toContain('haven-registry')
  })
})
