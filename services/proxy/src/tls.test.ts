import { X509Certificate } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, describe, expect, it } from '@jest/globals'
import { createLogger, type RequestHandler } from '@haven/runtime'
import { ConfigProblem, readConfig } from '@haven/config'
import { headFirst, MemoryStorage, newObjectKey } from '@haven/storage'
import { readCertificate } from './certificate.ts'
import { certificateSource, proxyConfig } from './config.ts'
import { openDoor, type CertificateSource, type DoorOptions } from './door.ts'
import { selfSigned } from './self-signed.ts'

const root = mkdtempSync(join(tmpdir(), 'haven-tls-'))
afterAll(() => rmSync(root, { recursive: true }))
const log = createLogger({ service: 'test', level: 'silent' })
const hello: RequestHandler = (_req, res) => void res.end('hello')

const open = (certificate: CertificateSource, more: Partial<DoorOptions> = {}, handler = hello) =>
  openDoor(handler, { host: '127.0.0.1', port: 0, log, tls: { port: 0, certificate, lookEveryMs: 20 }, ...more })

/** A request by a name that the certificate has, verified against `ca`. */
function ask(port: number, ca: string, path = '/'): Promise<string> {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false })
    const req = request({ host: '127.0.0.1', port, path, ca, servername: 'localhost', agent }, (res) => {
      let body = ''
      res.on('data', (chunk: Buffer) => (body += chunk.toString()))
      res.on('end', () => resolve(body))
    })
    req.on('error', reject)
    req.end()
  })
}

function redirect(port: number, path: string, headers: Record<string, string> = {}, method = 'GET') {
  return new Promise<{ status: number; location: string | undefined }>((resolve, reject) => {
    const req = httpRequest({ host: '127.0.0.1', port, path, headers, method }, (res) => {
      res.resume()
      resolve({ status: res.statusCode!, location: res.headers.location })
    })
    req.on('error', reject)
    req.end()
  })
}

describe('the door with TLS', () => {
  it('serves with a self-signed pair that is made once, by whichever process is first, and kept', async () => {
    const folder = join(root, 'own')
    const [first, second] = await Promise.all([selfSigned(folder, ['haven.test']), selfSigned(folder, ['haven.test'])])
    expect(first).toEqual(second)
    expect(statSync(first.keyPath).mode & 0o077).toBe(0)
    const ca = readFileSync(join(folder, 'tls.crt'), 'utf8')
    expect(ca).not.toContain('PRIVATE')
    const [one, two] = [await open({ selfSignedIn: folder }), await open({ selfSignedIn: folder })]
    expect(await ask(one.tlsPort!, ca)).toBe('hello')
    expect(await ask(two.tlsPort!, ca)).toBe('hello')
    for (const door of [one, two]) for (const listening of door.listening) await listening.drain(100)
  })

  it('makes the pair anew when clients come by a name that it lacks', async () => {
    const folder = join(root, 'renamed')
    const { certPath } = await selfSigned(folder, ['one.test'])
    const first = readFileSync(certPath, 'utf8')
    await selfSigned(folder, ['one.test', '127.0.0.1'])
    expect(readFileSync(certPath, 'utf8')).toBe(first)
    const door = await open({ selfSignedIn: folder }, { externalUrl: 'https://two.test' })
    for (const listening of door.listening) await listening.drain(100)
    expect(new X509Certificate(readFileSync(join(folder, 'tls.crt'))).checkHost('two.test')).toBe('two.test')
  })

  it('opens no plain port when it is not asked to', async () => {
    const door = await open({ selfSignedIn: join(root, 'own') }, { port: null })
    expect([door.port, door.listening.map(({ port }) => port)]).toEqual([null, [door.tlsPort]])
    expect(await ask(door.tlsPort!, readFileSync(join(root, 'own/tls.crt'), 'utf8'))).toBe('hello')
    for (const listening of door.listening) await listening.drain(100)
  })

  it('sends no large piece of a body together with something else, for which Node would copy it', async () => {
    const bytes = Buffer.alloc(300_000, 'layer')
    const storage = new MemoryStorage()
    const key = newObjectKey()
    const { state } = await storage.append(key, null, 0, Readable.from([bytes]))
    await storage.complete(key, state, bytes.length)
    const together: number[][] = []
    const handler: RequestHandler = (req, res) => {
      const writev = req.socket._writev!.bind(req.socket)
      req.socket._writev = (chunks, done) => {
        together.push(chunks.map(({ chunk }) => (chunk as Buffer | string).length).filter((length) => length > 0))
        writev(chunks, done)
      }
      res.setHeader('Content-Length', bytes.length)
      if (req.url === '/stored')
        return void storage.send(key, { offset: 0, length: bytes.length }, res).then(() => res.end())
      res.writeHead(200)
      if (req.url === '/kept') headFirst(res)
      res.end(bytes)
    }
    const door = await open({ selfSignedIn: join(root, 'own') }, {}, handler)
    const ca = readFileSync(join(root, 'own/tls.crt'), 'utf8')
    const withOthers = async (path: string) => {
      together.length = 0
      const whole = (await ask(door.tlsPort!, ca, path)) === bytes.toString()
      return { whole, pieces: together.filter((lengths) => lengths.length > 1) }
    }
    const [stored, kept, plain] = [await withOthers('/stored'), await withOthers('/kept'), await withOthers('/')]
    for (const listening of door.listening) await listening.drain(100)
    expect(stored).toEqual({ whole: true, pieces: [] })
    expect(kept).toEqual({ whole: true, pieces: [] })
    // What it is about: Node alone does so.
    expect(plain).toEqual({ whole: true, pieces: [[expect.any(Number), bytes.length]] })
  })

  it('redirects the plain port by 308, to the external URL or to the host that was asked for', async () => {
    const folder = join(root, 'redirect')
    const door = await open({ selfSignedIn: folder })
    const { tlsPort } = door
    const port = door.port!
    expect(await redirect(port, '/v2/a?b=c', { host: 'haven.test:80' }, 'POST')).toEqual({
      status: 308,
      location: `https://haven.test:${tlsPort}/v2/a?b=c`,
    })
    expect(await redirect(port, '/', { host: '[::1]:80' })).toMatchObject({ location: `https://[::1]:${tlsPort}/` })
    expect((await redirect(port, '/', { host: 'a@evil.test' })).status).toBe(400)
    expect((await redirect(port, '//evil.test/')).status).toBe(404)
    for (const listening of door.listening) await listening.drain(100)

    const external = await open({ selfSignedIn: folder }, { externalUrl: 'https://registry.example/' })
    expect(await redirect(external.port!, '/c/login', { host: 'evil.test' })).toEqual({
      status: 308,
      location: 'https://registry.example/c/login',
    })
    for (const listening of external.listening) await listening.drain(100)
  })

  it('takes a replaced certificate without a restart, and keeps the one before while the new pair does not fit', async () => {
    const [a, b, mounted] = ['a', 'b', 'mounted'].map((name) => join(root, name)) as [string, string, string]
    await selfSigned(a)
    await selfSigned(b)
    mkdirSync(mounted)
    const files = { certPath: join(mounted, 'tls.crt'), keyPath: join(mounted, 'tls.key') }
    copyFileSync(join(a, 'tls.pem'), files.certPath)
    copyFileSync(join(a, 'tls.pem'), files.keyPath)
    const [caA, caB] = [readFileSync(join(a, 'tls.crt'), 'utf8'), readFileSync(join(b, 'tls.crt'), 'utf8')]
    const door = await open(files)
    expect(await ask(door.tlsPort!, caA)).toBe('hello')

    const certificateOnly = readFileSync(join(b, 'tls.crt'))
    writeFileSync(files.certPath, certificateOnly)
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(await ask(door.tlsPort!, caA)).toBe('hello')

    copyFileSync(join(b, 'tls.pem'), files.keyPath)
    for (const end = Date.now() + 5000; ;) {
      const answer = await ask(door.tlsPort!, caB).catch((error: Error) => error.message)
      if (answer === 'hello') break
      if (Date.now() > end) throw new Error(`the new certificate was not taken: ${answer}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await expect(ask(door.tlsPort!, caA)).rejects.toThrow(/self-signed|certificate/)
    for (const listening of door.listening) await listening.drain(100)
  })

  it('refuses TLS 1.1, and outlives plain text and a handshake that never ends on its port', async () => {
    const folder = join(root, 'handshake')
    const door = await open({ selfSignedIn: folder }, { limits: { headersTimeoutMs: 200 } })
    const old = tlsConnect({
      host: '127.0.0.1',
      port: door.tlsPort!,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      rejectUnauthorized: false,
    })
    await expect(
      new Promise((resolve, reject) => old.on('secureConnect', resolve).on('error', reject)),
    ).rejects.toThrow()
    await expect(fetch(`http://127.0.0.1:${door.tlsPort}/`)).rejects.toThrow()
    const { connect } = await import('node:net')
    const silent = connect(door.tlsPort!, '127.0.0.1')
    silent.on('error', () => {})
    await new Promise((resolve) => silent.once('close', resolve))
    expect(await ask(door.tlsPort!, readFileSync(join(folder, 'tls.crt'), 'utf8'))).toBe('hello')
    for (const listening of door.listening) await listening.drain(100)
  })

  it('does not start with files that are no pair', async () => {
    const folder = join(root, 'a')
    writeFileSync(join(root, 'broken'), 'not pem')
    const broken = { certPath: join(root, 'broken'), keyPath: join(folder, 'tls.pem') }
    await expect(readCertificate(broken)).rejects.toMatchObject({ kind: { name: 'keyUnreadable', exitCode: 27 } })
    await expect(readCertificate({ ...broken, certPath: join(root, 'absent') })).rejects.toThrow(/ENOENT/)
  })
})

describe('the settings of the door', () => {
  const HAVEN_PROXY_SECRET = 'x'.repeat(32)
  const path = join(root, 'setting')
  writeFileSync(path, 'pem')
  const source = (env: Record<string, string>) =>
    certificateSource(readConfig(proxyConfig, { HAVEN_PROXY_SECRET, ...env }))

  it('choose the certificate', () => {
    expect(source({})).toBeUndefined()
    expect(source({ PROXY_TLS: 'self-signed', PROXY_TLS_FOLDER: '/x' })).toEqual({ selfSignedIn: '/x' })
    expect(source({ PROXY_TLS_CERT_FILE: path, PROXY_TLS_KEY_FILE: path })).toEqual({ certPath: path, keyPath: path })
    expect(() => source({ PROXY_TLS_CERT_FILE: path })).toThrow(/PROXY_TLS_KEY/)
    expect(() => source({ PROXY_TLS: 'files' })).toThrow(ConfigProblem)
  })
})
