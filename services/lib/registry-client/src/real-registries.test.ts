import { spawn } from 'node:child_process'
import { createSign, generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import {
  digestOf,
  mediaTypes,
  parseRepositoryName,
  parseScopes,
  parseTag,
  referrersTag,
  type ByteRange,
} from '@haven/oci'
import { OutboundClient } from '@haven/outbound'
import { freePort } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { registry, type BlobUpload, type Endpoint, type RegistryClient } from './index.ts'
import { upstreamStatus } from './answers.ts'

// The client against registries that others wrote. One knows passwords, the other tokens.

const robot = { type: 'basic', username: 'robot', password: 'secret' } as const
const app = parseRepositoryName('team/app')!
const base = parseRepositoryName('team/base')!

const debian = findTool('docker-registry')
const three = findTool('registry')

type Running = { readonly url: string; stop: () => Promise<void> }

async function start(binary: string, folder: string, auth: object): Promise<Running> {
  const port = await freePort()
  const config = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'data') }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}`, secret: 'test' },
    auth,
  }
  const file = join(folder, 'config.yml')
  writeFileSync(file, JSON.stringify(config)) // JSON is YAML
  const child = spawn(binary, ['serve', file], {
    stdio: 'ignore',
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  })
  const url = `http://127.0.0.1:${port}`
  const gone = once(child, 'exit')
  for (let waited = 0; waited < 300 && child.exitCode === null; waited++) {
    if (await fetch(`${url}/v2/`).then(() => true, () => false)) break // prettier-ignore
    await sleep(50)
  }
  if (child.exitCode !== null) throw new Error(`${binary} ended with ${child.exitCode}`)
  return { url, stop: async () => (child.kill('SIGKILL'), void (await gone)) }
}

/** A token service as the specification of Distribution has it: signs what is asked, for the one who knows the password. */
async function startTokenService(folder: string) {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwks = join(folder, 'jwks.json')
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'test', alg: 'RS256', use: 'sig' }
  writeFileSync(jwks, JSON.stringify({ keys: [key] }))
  const asked: string[] = []
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const server = createServer((req, res) => {
    const query = new URL(req.url!, 'http://token').searchParams
    asked.push(query.getAll('scope').join(' '))
    if (req.headers.authorization !== `Basic ${Buffer.from('robot:secret').toString('base64')}`) {
      res.writeHead(401).end()
      return
    }
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: 'test',
      sub: 'robot',
      aud: query.get('service'),
      nbf: now - 5,
      iat: now,
      exp: now + 300,
      jti: randomBytes(8).toString('hex'),
    }
    const content = `${encode({ typ: 'JWT', alg: 'RS256', kid: 'test' })}.${encode({ ...claims, access: parseScopes(query.getAll('scope')) })}`
    const token = `${content}.${createSign('RSA-SHA256').update(content).sign(privateKey, 'base64url')}`
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ token, expires_in: 300 }))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, jwks, asked, stop: () => server.close() }
}

function upload(bytes: Buffer): BlobUpload {
  const open = ({ first, last }: ByteRange) => Readable.from([bytes.subarray(first, last + 1)])
  return { digest: digestOf(bytes), sizeBytes: bytes.length, open }
}

function behaves(scheme: 'basic' | 'bearer', connect: (endpoint?: Partial<Endpoint>) => RegistryClient) {
  const config = Buffer.from('{}')
  const layer = randomBytes(3_000_000)
  const describeBlob = (bytes: Buffer, mediaType: string) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  })
  const image = (extra: object = {}) =>
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaTypes.ociManifest,
        config: describeBlob(config, mediaTypes.ociConfig),
        layers: [describeBlob(layer, 'application/vnd.oci.image.layer.v1.tar')],
        ...extra,
      }),
    )
  const push = (client: RegistryClient, bytes: Buffer, tag: string) =>
    client.putManifest(app, { tag: parseTag(tag)! }, { mediaType: mediaTypes.ociManifest, bytes })

  it('takes the right password and no other', async () => {
    expect(await connect().ping()).toEqual({ auth: scheme })
    await expect(connect({ credential: { ...robot, password: 'wrong' } }).ping()).rejects.toEqual(
      expect.objectContaining({ kind: problems.outboundFailed.kind, facts: expect.objectContaining({ status: 401 }) }),
    )
  })

  it('pushes blobs in one request, in chunks, empty, and by mount, and reads them back', async () => {
    const client = connect()
    expect(await client.headBlob(app, digestOf(layer))).toBeNull()
    expect(await client.pushBlob(base, upload(layer))).toBe('pushed')
    expect(await client.pushBlob(app, upload(layer), { mountFrom: base })).toBe('mounted')
    expect(await client.pushBlob(app, upload(config), { mountFrom: base })).toBe('pushed')
    expect(await client.pushBlob(app, upload(Buffer.from('x')), { chunkBytes: 1 })).toBe('pushed')
    expect(await client.pushBlob(app, upload(Buffer.alloc(0)))).toBe('pushed')
    const chunked = randomBytes(2_500_001)
    expect(await client.pushBlob(app, upload(chunked), { chunkBytes: 1_000_000 })).toBe('pushed')
    expect(await client.headBlob(app, digestOf(chunked))).toEqual({ sizeBytes: chunked.length })
    const whole = await client.getBlob(app, digestOf(chunked), { sizeBytes: chunked.length })
    expect((await buffer(whole!.body)).equals(chunked)).toBe(true)
    const part = await client.getBlob(app, digestOf(layer), { range: { first: 1000, last: 1999 } })
    expect((await buffer(part!.body)).equals(layer.subarray(1000, 2000))).toBe(true)
    expect(await client.getBlob(app, digestOf('nothing'))).toBeNull()
  })

  it('has a blob refused whose digest is another', async () => {
    const lying = { ...upload(Buffer.from('these bytes')), digest: digestOf('those bytes') }
    const failure = await connect()
      .pushBlob(app, lying)
      .catch((error: unknown) => error)
    expect(upstreamStatus(failure)).toBe(400)
    expect(await connect().headBlob(app, lying.digest)).toBeNull()
  })

  it('pushes, finds, lists and deletes manifests', async () => {
    const client = connect()
    const bytes = image()
    const digest = digestOf(bytes)
    expect(await push(client, bytes, 'v1')).toEqual({ digest, subject: null })
    await push(client, bytes, 'v2')
    const head = { digest, mediaType: mediaTypes.ociManifest, sizeBytes: bytes.length }
    expect(await client.headManifest(app, { tag: parseTag('v1')! })).toEqual(head)
    expect(await client.getManifest(app, { tag: parseTag('v2')! })).toEqual({ ...head, bytes })
    expect(await client.getManifest(app, { digest })).toEqual({ ...head, bytes })
    const tags: string[] = []
    for await (const page of client.listTags(app)) tags.push(...page)
    expect(tags.sort()).toEqual(['v1', 'v2'])
    const repositories: string[] = []
    for await (const page of client.catalog()) repositories.push(...page)
    expect(repositories).toContain('team/app')
    expect(await client.deleteManifest(app, { digest })).toBe(true)
    expect(await client.getManifest(app, { digest })).toBeNull()
    expect(await client.deleteManifest(app, { digest })).toBe(false)
  })

  it('lists referrers by the fallback tag', async () => {
    const client = connect()
    const subject = describeBlob(image(), mediaTypes.ociManifest)
    expect(await client.listReferrers(app, subject.digest)).toEqual([])
    const signature = image({ subject, artifactType: 'a/sig' })
    await push(client, signature, 'signature')
    const entry = { ...describeBlob(signature, mediaTypes.ociManifest), artifactType: 'a/sig' }
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [entry] }))
    const tag = referrersTag(subject.digest)
    await client.putManifest(app, { tag }, { mediaType: mediaTypes.ociIndex, bytes: index })
    const found = await client.listReferrers(app, subject.digest, { artifactType: 'a/sig' })
    expect(found.map(({ digest }) => digest)).toEqual([digestOf(signature)])
    expect(await client.listReferrers(app, subject.digest, { artifactType: 'a/sbom' })).toEqual([])
  })
}

const outbound = () => new OutboundClient({ allow: ['127.0.0.1'] })
const lackOfDebian = lacking('docker-registry')
;(lackOfDebian ? describe.skip : describe)(titled("Debian's docker-registry, by password", lackOfDebian), () => {
  let folder: string
  let running: Running
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-registry-'))
    const htpasswd = join(folder, 'htpasswd')
    // bcrypt of "secret"
    writeFileSync(htpasswd, 'robot:$2y$04$tz0jByQwvYuX0ufqiHMzOO0nyHBdVgSApsMpRweGSeQKxA.zLJZ.W\n')
    running = await start(debian!, folder, { htpasswd: { realm: 'test', path: htpasswd } })
  })
  afterAll(async () => {
    await running?.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  behaves('basic', (endpoint) => registry({ url: running.url, credential: robot, ...endpoint }, outbound()))
})

const lackOfThree = lacking('registry')
;(lackOfThree ? describe.skip : describe)(titled('Distribution 3, by token', lackOfThree), () => {
  let folder: string
  let running: Running
  let tokens: Awaited<ReturnType<typeof startTokenService>>
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-registry-'))
    tokens = await startTokenService(folder)
    const token = { realm: `${tokens.url}/token`, service: 'reg', issuer: 'test', jwks: tokens.jwks }
    running = await start(three!, folder, { token })
  })
  afterAll(async () => {
    await running?.stop()
    tokens?.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  behaves('bearer', (endpoint) =>
    registry({ url: running.url, credential: robot, tokenOrigins: [tokens.url], ...endpoint }, outbound()),
  )

  it('needs a few tokens for many requests', async () => {
    const before = tokens.asked.length
    const client = registry({ url: running.url, credential: robot, tokenOrigins: [tokens.url] }, outbound())
    for (let i = 0; i < 20; i++) await client.headBlob(app, digestOf(String(i)))
    expect(tokens.asked.slice(before)).toEqual(['repository:team/app:pull'])
  })
})
