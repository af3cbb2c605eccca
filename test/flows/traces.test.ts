import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, freePort } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { ADMIN, send, until, type Client } from './client.ts'
import { startDocker29, engine29Tools, type DockerEngine } from '../clients/docker-engine.ts'
import { buildImage } from '../clients/images.ts'
import { OtlpReceiver, type ReceivedSpan } from './otlp-receiver.ts'
import { startSplit, type Split } from './split.ts'

/** The spans of a trace, and how they hang together. */
class Trace {
  readonly spans: readonly ReceivedSpan[]

  constructor(spans: readonly ReceivedSpan[]) {
    this.spans = spans
  }

  find(process: string, name: RegExp): ReceivedSpan | undefined {
    return this.spans.find((span) => span.process === `haven-${process}` && name.test(span.name))
  }

  /** The names from a span up to the client's. */
  way(from: ReceivedSpan): string[] {
    const parent = this.spans.find(({ id }) => id === from.parent)
    return [from.name, ...(parent ? this.way(parent) : [from.parent ?? 'no parent'])]
  }

  /** The names of what a span caused itself. */
  below({ id }: ReceivedSpan): string[] {
    return this.spans.filter(({ parent }) => parent === id).map(({ name }) => name)
  }
}

const hex = (bytes: number) => randomBytes(bytes).toString('hex')

describe('a platform of services apart that sends traces', () => {
  let receiver: OtlpReceiver
  let platform: Split
  let client: Client

  beforeAll(async () => {
    receiver = await OtlpReceiver.start()
    platform = await startSplit({
      OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-receiver=secret-of-the-receiver',
      TRACE_SAMPLE_RATE: '0',
      TRACE_ATTRIBUTES: '{"cluster":"of tests"}',
    })
    client = platform.client
  }, 120_000)

  afterAll(async () => {
    await platform?.[Symbol.asyncDispose]()
    await receiver?.[Symbol.asyncDispose]()
  }, 60_000)

  const spansOf = (trace: string) => receiver.spans.filter((span) => span.trace === trace)
  const find = (spans: readonly ReceivedSpan[], process: string, name: RegExp) => new Trace(spans).find(process, name)
  const wayOf = (spans: readonly ReceivedSpan[], from: ReceivedSpan) => new Trace(spans).way(from)

  /** A push as a client that takes part in a trace makes it. */
  async function tracedPush() {
    const [trace, root] = [hex(16), hex(8)]
    const headers = { traceparent: `00-${trace}-${root}-01` }
    const token = await client.token(ADMIN, 'library/traced')
    const image = await client.pushImage('library/traced', '1', token, 1024, headers)
    return { trace, root, token, image }
  }

  it('shows every hop of a push in the trace of the client: proxy, registry, Postgres, store, and what the push caused in the job service', async () => {
    const { trace, root } = await tracedPush()
    const spans = await until(
      'the event of the push',
      async () => spansOf(trace),
      (all) => find(all, 'jobservice', /^event ArtifactPushed$/) !== undefined,
      20_000,
    )
    const put = find(spans, 'registry', /^registry PUT .*\/manifests\//)!
    expect(wayOf(spans, put)).toEqual(['registry PUT /v2/{name}/manifests/{reference}', 'proxy PUT', root])
    expect(put.attributes).toMatchObject({ 'http.response.status_code': 201, 'haven.service': 'registry' })
    expect(spans.find(({ name, parent }) => name.startsWith('postgres ') && parent === put.id)).toBeDefined()
    const event = find(spans, 'jobservice', /^event ArtifactPushed$/)!
    expect(wayOf(spans, event)).toContain(put.name)
    const upload = spans.filter(({ name }) => name === 'registry PUT /v2/{name}/blobs/uploads/{upload}')
    const stored = spans.find(({ name, parent }) => name === 'store complete' && upload.some(({ id }) => id === parent))
    expect(stored?.attributes).toMatchObject({ 'haven.store': 'files' })
    expect(new Set(spans.map((span) => span.process))).toEqual(
      new Set(['haven-proxy', 'haven-registry', 'haven-jobservice']),
    )
    expect(spans.filter(({ failed }) => failed)).toEqual([])
  }, 40_000)

  it('goes on through Redis, a job and the service that the job asks', async () => {
    const [trace, request] = [hex(16), `gc-${hex(8)}`]
    const run = await send(`${client.url}/api/v2.0/system/gc/schedule`, 'POST', {
      as: ADMIN,
      headers: { traceparent: `00-${trace}-${hex(8)}-01`, 'X-Request-Id': request },
      body: { schedule: { type: 'Manual' }, parameters: {} },
    })
    expect(run.status).toBe(201)
    const spans = await until(
      'the job',
      async () => spansOf(trace),
      (all) =>
        find(all, 'jobservice', /^job GARBAGE_COLLECTION$/) !== undefined &&
        find(all, 'registryctl', /^registryctl POST/) !== undefined,
      20_000,
    )
    const asked = find(spans, 'registryctl', /^registryctl POST/)!
    const job = find(spans, 'jobservice', /^job GARBAGE_COLLECTION$/)!
    expect(wayOf(spans, asked)).toContain(job.name)
    expect(wayOf(spans, job)).toContain('core POST /api/v2.0/system/gc/schedule')
    expect(job.attributes).toMatchObject({ 'haven.request': request })
    expect(find(spans, 'core', /^redis /)).toBeDefined()
    // One id finds the lines of everybody whom the request touched, and so does the other.
    for (const id of [request, trace]) await linesOf(id, ['core', 'jobservice', 'proxy', 'registryctl'])
    const found = await send(`${client.url}/api/haven/v1/logs?requestId=${trace}`, 'GET', { as: ADMIN })
    const { lines } = found.json as { lines: { requestId?: string }[] }
    expect(lines.filter(({ requestId }) => requestId === request).length).toBeGreaterThanOrEqual(4)
  }, 40_000)

  it('begins no trace of its own where the share is 0, keeps out what a trace must not tell, and a bad parent is none', async () => {
    const before = new Set(receiver.spans.map(({ trace }) => trace))
    const bad = await send(`${client.url}/api/v2.0/projects`, 'GET', {
      as: ADMIN,
      headers: { traceparent: `00-${'0'.repeat(32)}-${hex(8)}-01` },
    })
    expect(bad.status).toBe(200)
    const { trace, token } = await tracedPush()
    await until(
      'the second push',
      async () => spansOf(trace),
      (all) => find(all, 'registry', /manifests/) !== undefined,
    )
    const after = new Set(receiver.spans.map((span) => span.trace))
    expect([...after].filter((each) => !before.has(each))).toEqual([trace])
    expect(JSON.stringify(receiver.spans)).not.toContain(token)
    expect(receiver.headers.every((headers) => headers['x-receiver'] === 'secret-of-the-receiver')).toBe(true)
  }, 40_000)

  it('finds by one id the lines of a push in the file of each service that it touched', async () => {
    const request = `push-${hex(8)}`
    const token = await client.token(ADMIN, 'library/told')
    await client.pushImage('library/told', '1', token, 1024, { 'X-Request-Id': request })
    await linesOf(request, ['proxy', 'registry'])
    const asked = await send(`${client.url}/service/token?service=harbor-registry`, 'GET', {
      as: ADMIN,
      headers: { 'X-Request-Id': `${request}-token` },
    })
    expect(asked.status).toBe(200)
    await linesOf(`${request}-token`, ['proxy', 'token'])
    const found = await send(`${client.url}/api/haven/v1/logs?requestId=${request}`, 'GET', { as: ADMIN })
    const { lines } = found.json as { lines: { service: string }[] }
    expect(new Set(lines.map(({ service }) => service))).toEqual(new Set(['proxy', 'registry']))
  }, 40_000)

  /** Waits until the collector's files of exactly these services have lines with the id. */
  async function linesOf(id: string, services: readonly string[]) {
    await until(
      `lines of ${id}`,
      async () =>
        readdirSync(platform.logs)
          .filter((file) => file.endsWith('.log') && readFileSync(join(platform.logs, file), 'utf8').includes(id))
          .map((file) => file.replace(/\.log$/, '')),
      (names) => JSON.stringify(names.toSorted()) === JSON.stringify(services),
      20_000,
    )
  }
})

const lack = lacking(...engine29Tools, 'busybox', 'versitygw')
const suite = lack ? describe.skip : describe

suite(titled('a push by docker', lack), () => {
  let receiver: OtlpReceiver
  let store: VersityGw
  let platform: Split
  let engine: DockerEngine
  let image: string

  beforeAll(async () => {
    receiver = await OtlpReceiver.start()
    store = await startVersityGw()
    platform = await startSplit({
      OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
      ...store.settings,
      S3_BUCKET: 'haven',
    })
    // An engine that has somewhere to send its spans to takes part; nobody is there to take them.
    const nobody = `http://127.0.0.1:${await freePort()}`
    engine = await startDocker29({ daemon: { OTEL_EXPORTER_OTLP_ENDPOINT: nobody } })
    const host = new URL(platform.client.url).host
    image = `${host}/library/hello:1`
    await engine.mustDocker(['login', host, '-u', 'admin', '--password-stdin'], { input: ADMIN_PASSWORD })
    await buildImage(engine, image, 'hello from haven')
    receiver.spans.length = 0
    await engine.mustDocker(['push', image])
  }, 240_000)
  afterAll(async () => {
    await engine?.[Symbol.asyncDispose]()
    await platform?.[Symbol.asyncDispose]()
    await store?.[Symbol.asyncDispose]()
    await receiver?.[Symbol.asyncDispose]()
  }, 60_000)

  it('is one trace with every hop: proxy, token and registry, Postgres and S3, and the job service that tells of it', async () => {
    const pushed = () => {
      const event = new Trace(receiver.spans).find('jobservice', /^event ArtifactPushed$/)
      return new Trace(receiver.spans.filter(({ trace }) => trace === event?.trace))
    }
    // Each process sends what it has once a second. Nothing hangs in the air: whatever is not the proxy's own leads to it.
    const push = await until(
      'all of the push',
      async () => pushed(),
      (all) =>
        all.find('token', /^token/) !== undefined &&
        all.spans.every(
          (span) => span.name.startsWith('proxy ') || /^proxy (HEAD|POST|PUT)$/.test(all.way(span).at(-2)!),
        ),
      20_000,
    )
    const event = push.find('jobservice', /^event ArtifactPushed$/)!
    const parents = push.spans.filter(({ name }) => name.startsWith('proxy ')).map(({ parent }) => parent)
    expect(parents.length).toBeGreaterThan(8)
    expect(parents).not.toContain(null) // they are the engine's

    const token = push.find('token', /^token POST/)!
    const upload = push.find('registry', /^registry PUT .*\/uploads\/\{upload\}$/)!
    const manifest = push.find('registry', /^registry PUT .*\/manifests\/\{reference\}$/)!
    expect(push.way(token)[1]).toBe('proxy POST')
    for (const served of [upload, manifest]) {
      expect(push.way(served)[1]).toBe('proxy PUT')
      expect(served.attributes).toMatchObject({ 'http.response.status_code': 201 })
    }
    for (const asking of [token, upload, manifest])
      expect(push.below(asking)).toEqual(expect.arrayContaining([expect.stringMatching(/^postgres /)]))
    expect(push.below(upload)).toEqual(expect.arrayContaining(['store append', 'store complete']))
    for (const step of push.spans.filter(({ name }) => name.startsWith('store ')))
      expect(step.attributes).toMatchObject({ 'haven.store': 's3' })
    expect(push.way(event)).toContain(manifest.name)
    expect(new Set(push.spans.map((span) => span.process))).toEqual(
      new Set(['haven-proxy', 'haven-token', 'haven-registry', 'haven-jobservice']),
    )
  }, 40_000)

  it('begins at the proxy, each request a trace of its own, where the client takes no part', async () => {
    receiver.spans.length = 0
    const token = await platform.client.token(ADMIN, 'library/alone')
    await platform.client.pushImage('library/alone', '1', token)
    const spans = await until(
      'the event of the push',
      async () => receiver.spans,
      (all) => new Trace(all).find('jobservice', /^event ArtifactPushed$/) !== undefined,
      20_000,
    )
    const all = new Trace(spans)
    expect(all.way(all.find('jobservice', /^event ArtifactPushed$/)!).slice(-3)).toEqual([
      'registry PUT /v2/{name}/manifests/{reference}',
      'proxy PUT',
      'no parent',
    ])
    expect(all.way(all.find('token', /^token GET/)!).slice(-2)).toEqual(['proxy GET', 'no parent'])
  }, 40_000)
})
