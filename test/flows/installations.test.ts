import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, request as httpRequest } from 'node:http'
import { Agent, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, freePort, runHaven, startHaven, type HavenInstallation } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { ADMIN, Client, send, until } from './client.ts'

/** One with TLS and one without, started at the same moment: all that follows shows that they do not disturb each other. */
let secure: HavenInstallation
let plain: HavenInstallation
let redirectPort: number

beforeAll(async () => {
  redirectPort = await freePort()
  ;[secure, plain] = await Promise.all([
    startHaven({ env: { HAVEN_TLS: 'self-signed', HAVEN_HTTP_PORT: String(redirectPort) } }),
    startHaven(),
  ])
}, 90_000)
afterAll(async () => {
  await Promise.all([secure?.[Symbol.asyncDispose](), plain?.[Symbol.asyncDispose]()])
}, 60_000)

const certificate = () => join(secure.home, 'tls/tls.crt')

type Answer = { status: number; headers: NodeJS.Dict<string | string[]>; body: string }

function askSecurely(path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ ca: readFileSync(certificate()), keepAlive: false })
    const req = request(secure.url + path, { agent }, (res) => {
      let body = ''
      res.on('data', (chunk: Buffer) => (body += chunk.toString()))
      res.once('end', () => resolve({ status: res.statusCode!, headers: res.headers, body }))
    })
    req.once('error', reject)
    req.end()
  })
}

function tool(
  name: string,
  args: string[],
  env: Record<string, string>,
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(findTool(name)!, args, {
      env: { PATH: process.env.PATH!, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, output }))
  })
}

describe('TLS', () => {
  it('serves with a certificate that clients can be given, and names itself by https', async () => {
    const challenge = await askSecurely('/v2/')
    expect([challenge.status, challenge.headers['www-authenticate']]).toEqual([
      401,
      `Bearer realm="${secure.url}/service/token",service="harbor-registry"`,
    ])
    expect(challenge.headers['strict-transport-security']).toBeDefined()
    await expect(fetch(`${secure.url}/v2/`)).rejects.toMatchObject({ cause: { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' } })
    expect((await secure.command('doctor')).output).toMatch(/clients .*certificate until .*not trusted here/)
  })

  it('offers that certificate for download', async () => {
    const { status, headers, body } = await askSecurely('/api/v2.0/systeminfo/getcert')
    expect([status, headers['content-disposition']]).toEqual([200, 'attachment; filename=ca.crt'])
    expect(body).toBe(readFileSync(certificate(), 'utf8'))
    expect((await fetch(`${plain.url}/api/v2.0/systeminfo/getcert`)).status).toBe(404)
  })

  const noCrane = lacking('crane')
  ;(noCrane ? it.skip : it)(titled('lets crane push and pull', noCrane), async () => {
    const folder = mkdtempSync(join(tmpdir(), 'haven-crane-'))
    try {
      const client = new Client(plain.url)
      await client.pushImage('library/app', '1', await client.token(ADMIN, 'library/app'))
      const env = { HOME: folder, DOCKER_CONFIG: folder, SSL_CERT_FILE: certificate() }
      const target = `${secure.host}/library/app:1`
      const login = ['auth', 'login', '-u', 'admin', '-p', ADMIN_PASSWORD, secure.host]
      expect(await tool('crane', login, env)).toMatchObject({ code: 0 })
      expect(await tool('crane', ['copy', `${plain.host}/library/app:1`, target], env)).toMatchObject({ code: 0 })
      const [there, here] = await Promise.all(
        [target, `${plain.host}/library/app:1`].map((name) => tool('crane', ['digest', name], env)),
      )
      expect(there).toEqual({ code: 0, output: here!.output })
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it('redirects the plain port by 308', async () => {
    const moved = await send(`http://127.0.0.1:${redirectPort}/v2/library/app/manifests/1?x=y`, 'PUT', { body: '{}' })
    expect([moved.status, moved.headers.get('location')]).toEqual([308, `${secure.url}/v2/library/app/manifests/1?x=y`])
  })

  it('of a client that greets a plain port with it is answered at once', async () => {
    for (const port of [redirectPort, Number(plain.host.split(':')[1])]) {
      const startedAt = performance.now()
      const { message } = await new Promise<Error>((resolve, reject) => {
        const socket = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false })
        socket.once('error', resolve)
        socket.once('secureConnect', () => reject(new Error('a plain port spoke TLS')))
        socket.once('close', () => reject(new Error('closed without a word')))
      })
      expect(message).toMatch(/SSL|TLS/i)
      // It waits 20 s for the head of a request: not that, however busy the machine is.
      expect(performance.now() - startedAt).toBeLessThan(10_000)
    }
  })
})

describe('an installation with wrong settings', () => {
  it('says what is wrong in each process, with exit code 78, and leaves nothing running', async () => {
    const home = mkdtempSync(join(tmpdir(), 'haven-wrong-'))
    try {
      const env = {
        ...process.env,
        HAVEN_HOME: home,
        HAVEN_PORT: String(await freePort()),
        REGISTRY_BLOB_READS: 'maybe',
        HAVEN_SIGNING_KEY_AGE: 'long',
      }
      const { code, output } = await runHaven(['up'], env)
      expect(code).toBe(78)
      expect(output).toContain('REGISTRY_BLOB_READS: "maybe", expected stream or redirect')
      expect(output).toContain('HAVEN_SIGNING_KEY_AGE: "long", expected')
      expect(existsSync(join(home, 'postgres/postmaster.pid'))).toBe(false)
      const state = JSON.parse(readFileSync(join(home, 'state.json'), 'utf8')) as {
        pid: number
        processes: { pid: number | null }[]
      }
      expect(state.processes.map(({ pid }) => pid).filter((pid) => pid !== null)).toEqual([])
      await until(
        'the supervisor has ended',
        async () => existsSync(`/proc/${state.pid}`),
        (there) => !there,
      )
    } finally {
      rmSync(home, { recursive: true, force: true })
    }
  })
})

describe('doctor', () => {
  type Report = { well: boolean; findings: { id: string; what: string }[] }
  const report = async ({ home }: { home: string }, env: Record<string, string> = {}) => {
    // What the set-up of the tests sets is no setting.
    const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HAVEN_')))
    const { code, output } = await runHaven(['doctor', '--json'], { ...own, HAVEN_HOME: home, ...env })
    const { well, findings } = JSON.parse(output) as Report
    expect(code).toBe(well ? 0 : 1)
    return { well, ids: findings.map(({ id }) => id) }
  }
  /** Stands in front of `plain` as an operator's own server might. */
  async function inFront(keepsHost: boolean, mostBytes: number) {
    const server = createServer((req, res) => {
      if (Number(req.headers['content-length'] ?? 0) > mostBytes) return void res.writeHead(413).end()
      const headers = keepsHost ? req.headers : { ...req.headers, host: plain.host }
      const on = httpRequest(plain.url + req.url, { method: req.method, headers }, (answer) => {
        answer.pipe(res.writeHead(answer.statusCode!, answer.headers))
      })
      req.pipe(on.on('error', () => res.destroy()))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    return {
      url: `http://127.0.0.1:${port}`,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    }
  }

  it('finds nothing on installations that run, with and without TLS', async () => {
    const all = [await report(plain), await report(secure, { HAVEN_TLS: 'self-signed' })]
    expect(all).toEqual([
      { well: true, ids: [] },
      { well: true, ids: [] },
    ])
  })

  it('finds that what clients are told is not what they can use', async () => {
    const asSeenAt = (HAVEN_EXTERNAL_URL: string) => report(plain, { HAVEN_EXTERNAL_URL })
    {
      await using front = await inFront(true, Infinity)
      expect((await asSeenAt(front.url)).ids).toEqual([])
    }
    {
      await using front = await inFront(true, 1024 * 1024)
      expect((await asSeenAt(front.url)).ids).toEqual(['clients.body-limit'])
    }
    {
      await using front = await inFront(false, Infinity)
      expect((await asSeenAt(front.url)).ids).toEqual(['clients.realm'])
    }
    expect((await asSeenAt(secure.url)).ids).toEqual(['clients.certificate-untrusted', 'clients.another-installation'])
    expect((await asSeenAt(`http://127.0.0.1:${redirectPort}`)).ids).toEqual(['clients.redirected'])
  })

  it('looks at an installation that is down, and finds one that ended', async () => {
    const home = mkdtempSync(join(tmpdir(), 'haven-down-'))
    try {
      cpSync(join(plain.home, 'secrets.json'), join(home, 'secrets.json'))
      expect(await report({ home })).toEqual({ well: true, ids: [] })
      const state = JSON.parse(readFileSync(join(plain.home, 'state.json'), 'utf8')) as object
      writeFileSync(join(home, 'state.json'), JSON.stringify({ ...state, pid: 2 ** 22 + 1 }))
      expect(await report({ home })).toEqual({ well: false, ids: ['installation.ended'] })
      writeFileSync(join(home, 'secrets.json'), '{')
      expect((await report({ home })).ids).toContain('settings.invalid')
    } finally {
      rmSync(home, { recursive: true, force: true })
    }
  })
})

describe('two installations on one machine', () => {
  it('are apart: other secrets, other servers, other content', async () => {
    const secrets = [secure, plain].map(({ home }) => readFileSync(join(home, 'secrets.json'), 'utf8'))
    expect(secrets[0]).not.toBe(secrets[1])
    expect(secure.servers().databaseUrl).not.toBe(plain.servers().databaseUrl)
    const client = new Client(plain.url)
    await client.project('only-here')
    expect((await askSecurely('/api/v2.0/projects?name=only-here')).headers['x-total-count']).toBe('0')
    const token = await client.token(ADMIN, 'library/app')
    const elsewhere = await secure.query<{ kid: string }>('select kid from identity.signing_keys')
    const { kid } = JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()) as { kid: string }
    expect(elsewhere.map((key) => key.kid)).not.toContain(kid)
  })

  it('tell their own state', async () => {
    for (const haven of [secure, plain]) {
      const { code, output } = await haven.command('status')
      expect([code, output]).toEqual([0, expect.stringContaining(`running at ${haven.url}`)])
      expect(output).toContain('health: healthy')
    }
  })

  it('keep the lines of each service, and those of the process that keeps them', async () => {
    const { output } = await plain.command('logs', 'proxy')
    expect(output).toContain('==> services/proxy.log <==')
    expect(output).toContain('"access"')
    expect((await plain.command('logs', 'back')).output).toMatch(/services\/back\.log[^]*"msg":"ready"/)
    const unknown = await plain.command('logs', 'nobody')
    expect([unknown.code, unknown.output]).toEqual([64, expect.stringMatching(/no such log; there are .*proxy/)])
  })

  it('refuse the port of the other', async () => {
    const home = mkdtempSync(join(tmpdir(), 'haven-third-'))
    try {
      const third = await runHaven(['up'], { ...process.env, HAVEN_HOME: home, HAVEN_PORT: plain.host.split(':')[1] })
      expect(third.output).toMatch(/HAVEN_PORT/)
      expect(third.code).toBe(20)
    } finally {
      rmSync(home, { recursive: true, force: true })
    }
  })

  it('are not reset without somebody who confirms it', async () => {
    const { code, output } = await plain.command('reset')
    expect([code, output]).toEqual([64, expect.stringContaining('nobody is there to confirm it; pass --yes')])
    expect(existsSync(join(plain.home, 'secrets.json'))).toBe(true)
    expect((await send(`${plain.url}/api/v2.0/ping`, 'GET')).status).toBe(200)
  })

  it('stop alone', async () => {
    const pids = Object.values(plain.processes())
    expect(await plain.command('down')).toMatchObject({ code: 0 })
    const alive = pids.filter((pid) => existsSync(`/proc/${pid}`))
    expect(alive).toEqual([])
    expect((await plain.command('status')).code).toBe(1)
    expect((await askSecurely('/api/v2.0/ping')).status).toBe(200)
    for (const pid of Object.values(secure.processes())) expect(existsSync(`/proc/${pid}`)).toBe(true)
    expect((await plain.command('reset', '--yes')).code).toBe(0)
    expect(existsSync(plain.home)).toBe(false)
  })
})
