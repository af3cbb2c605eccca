import { createHash, randomBytes } from 'node:crypto'
import { Agent, request, type IncomingHttpHeaders } from 'node:http'
import { ADMIN_PASSWORD } from '@haven/testkit'

export const IMAGE_TYPE = 'application/vnd.oci.image.manifest.v1+json'

export type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer }
export type Ask = {
  headers?: Record<string, string>
  body?: Buffer
  timeoutMs?: number
  /** Over a connection of its own, and not one that was kept. */
  afresh?: boolean
}

/** Longer than anything may hang (reliability.md F12: an answer within 5 s), shorter than a test. */
const TIMEOUT_MS = 20_000

export const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** A client of the registry that repeats nothing by itself: what happened to a request is for its caller to judge. */
export class Client {
  readonly url: string
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 96 })
  /** Shared with the clients of its other addresses: whoever signs in does it for all. */
  #session = { token: '' }

  constructor(url: string) {
    this.url = url
  }

  /** Fetches a token for these repositories, as the administrator; what follows carries it. */
  async signIn(repositories: readonly string[]): Promise<Answer> {
    const scopes = repositories.map((name) => `scope=repository:${name}:pull,push,delete`).join('&')
    const answer = await this.send('GET', `/service/token?service=harbor-registry&${scopes}`, {
      headers: { authorization: basic },
    })
    if (answer.status === 200) this.#session.token = (JSON.parse(answer.body.toString()) as { token: string }).token
    return answer
  }

  /** Another address of the same installation, with the same token, now and later. */
  at(url: string): Client {
    const other = new Client(url)
    other.#session = this.#session
    return other
  }

  get authorization(): string {
    return this.#session.token === '' ? basic : `Bearer ${this.#session.token}`
  }

  /** The administrator's password, as the management API takes it. */
  get basic(): string {
    return basic
  }

  /** @throws when there is no whole answer: refused, reset, cut short, silent for too long. */
  send(
    method: string,
    path: string,
    { headers = {}, body, timeoutMs = TIMEOUT_MS, afresh = false }: Ask = {},
  ): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const req = request(new URL(path, this.url), {
        method,
        agent: afresh ? false : this.#agent,
        headers: {
          authorization: this.authorization,
          ...(body && { 'content-length': String(body.length) }),
          ...headers,
        },
        signal: AbortSignal.timeout(timeoutMs),
      })
      req.once('error', reject)
      req.once('response', (res) => {
        const parts: Buffer[] = []
        res.on('data', (part: Buffer) => parts.push(part))
        res.once('error', reject)
        res.once('end', () => resolve({ status: res.statusCode!, headers: res.headers, body: Buffer.concat(parts) }))
      })
      req.end(body)
    })
  }

  async startUpload(repository: string): Promise<Answer & { location: string }> {
    const answer = await this.send('POST', `/v2/${repository}/blobs/uploads/`)
    return { ...answer, location: answer.headers.location ?? '' }
  }

  patch(location: string, body: Buffer, offset?: number): Promise<Answer> {
    // No range says that there are no bytes.
    const range =
      offset === undefined || body.length === 0 ? {} : { 'content-range': `${offset}-${offset + body.length - 1}` }
    return this.send('PATCH', location, { body, headers: { 'content-type': 'application/octet-stream', ...range } })
  }

  finish(location: string, digest: string, body?: Buffer): Promise<Answer> {
    const path = `${location}${location.includes('?') ? '&' : '?'}digest=${digest}`
    return this.send('PUT', path, body ? { body, headers: { 'content-type': 'application/octet-stream' } } : {})
  }

  /** A blob as docker sends it: POST, one PATCH, an empty PUT. The answer is that of the first step that did not go on. */
  async pushBlob(repository: string, bytes: Buffer): Promise<Answer> {
    const started = await this.startUpload(repository)
    if (started.status !== 202) return started
    const sent = await this.patch(started.location, bytes)
    if (sent.status !== 202) return sent
    return this.finish(sent.headers.location!, digestOf(bytes))
  }

  mount(repository: string, digest: string, from: string): Promise<Answer> {
    return this.send('POST', `/v2/${repository}/blobs/uploads/?mount=${digest}&from=${from}`)
  }

  putManifest(repository: string, reference: string, bytes: Buffer): Promise<Answer> {
    return this.send('PUT', `/v2/${repository}/manifests/${reference}`, {
      body: bytes,
      headers: { 'content-type': IMAGE_TYPE },
    })
  }

  getManifest(repository: string, reference: string): Promise<Answer> {
    return this.send('GET', `/v2/${repository}/manifests/${reference}`, { headers: { accept: IMAGE_TYPE } })
  }

  getBlob(repository: string, digest: string): Promise<Answer> {
    return this.send('GET', `/v2/${repository}/blobs/${digest}`)
  }

  headBlob(repository: string, digest: string): Promise<Answer> {
    return this.send('HEAD', `/v2/${repository}/blobs/${digest}`)
  }

  deleteManifest(repository: string, reference: string): Promise<Answer> {
    return this.send('DELETE', `/v2/${repository}/manifests/${reference}`)
  }

  /** The management API, as the administrator. @throws with what it answered when that is no 2xx. */
  async api<Body = unknown>(method: string, path: string, body?: object): Promise<Body> {
    const answer = await this.send(method, `/api/v2.0${path}`, {
      headers: { authorization: basic, ...(body && { 'content-type': 'application/json' }) },
      ...(body && { body: Buffer.from(JSON.stringify(body)) }),
    })
    const text = answer.body.toString()
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
    return (text === '' ? null : JSON.parse(text)) as Body
  }

  close(): void {
    this.#agent.destroy()
  }
}

const basic = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`

export type Image = { layers: Buffer[]; manifest: Buffer; digest: string }

/** An image that nobody has pushed before. */
export function newImage(random: (below: number) => number = (below) => Math.floor(Math.random() * below)): Image {
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', made: randomBytes(12).toString('hex') }),
  )
  const layer = randomBytes(1 + random(64 * 1024))
  return imageOf([config, layer])
}

/** The image of these blobs, the first of which is its config. */
export function imageOf(layers: Buffer[]): Image {
  const describe = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: digestOf(bytes), size: bytes.length })
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: IMAGE_TYPE,
      config: describe('application/vnd.oci.image.config.v1+json', layers[0]!),
      layers: layers.slice(1).map((bytes) => describe('application/vnd.oci.image.layer.v1.tar', bytes)),
    }),
  )
  return { layers, manifest, digest: digestOf(manifest) }
}

/** Pushes all of an image; the answer is that of the first step that was refused, else of the manifest. */
export async function pushImage(client: Client, repository: string, reference: string, image: Image): Promise<Answer> {
  for (const bytes of image.layers) {
    const pushed = await client.pushBlob(repository, bytes)
    if (pushed.status !== 201) return pushed
  }
  return client.putManifest(repository, reference, image.manifest)
}
