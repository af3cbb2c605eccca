import { createHash, randomBytes } from 'node:crypto'
import { ADMIN_PASSWORD } from '@haven/testkit'

export type Account = { name: string; password: string }
export const ADMIN: Account = { name: 'admin', password: ADMIN_PASSWORD }
const PASSWORD = 'Passw0rd-of-tests'

export type Reply = { status: number; headers: Headers; text: string; json: unknown }
type Sent = { as?: Account | null; headers?: Record<string, string>; body?: object | string | Uint8Array }

const basic = ({ name, password }: Account) => `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

export async function send(url: string, method: string, { as = null, headers = {}, body }: Sent = {}): Promise<Reply> {
  const plain = typeof body === 'string' || body instanceof Uint8Array
  const response = await fetch(url, {
    method,
    redirect: 'manual',
    headers: {
      ...(as && { Authorization: basic(as) }),
      ...(body !== undefined && !plain && { 'Content-Type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: plain ? (body as string) : JSON.stringify(body) }),
  })
  const text = await response.text()
  const isJson = (response.headers.get('content-type') ?? '').includes('json') && text !== ''
  return { status: response.status, headers: response.headers, text, json: isJson ? JSON.parse(text) : null }
}

/** As a client that knows one installation. */
export class Client {
  readonly url: string

  constructor(url: string) {
    this.url = url
  }

  api(method: string, path: string, as: Account | null = ADMIN, body?: object): Promise<Reply> {
    return send(`${this.url}/api/v2.0${path}`, method, { as, ...(body && { body }) })
  }

  /** @throws when it is refused. */
  async mustApi(method: string, path: string, as: Account | null = ADMIN, body?: object): Promise<Reply> {
    const reply = await this.api(method, path, as, body)
    if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status} ${reply.text}`)
    return reply
  }

  /** An account, and its id. */
  async user(name: string): Promise<Account & { id: number }> {
    const account = { name, password: PASSWORD }
    const body = { username: name, password: PASSWORD, email: `${name}@example.test`, realname: name, comment: '' }
    return { ...account, id: idIn(await this.mustApi('POST', '/users', ADMIN, body)) }
  }

  async project(name: string, as: Account = ADMIN): Promise<number> {
    return idIn(await this.mustApi('POST', '/projects', as, { project_name: name, metadata: { public: 'false' } }))
  }

  async member(project: string, username: string, roleId: number, as: Account = ADMIN): Promise<number> {
    const body = { role_id: roleId, member_user: { username } }
    return idIn(await this.mustApi('POST', `/projects/${project}/members`, as, body))
  }

  /** A bearer token as the token service gives it, whatever it allows. */
  async token(as: Account | null, repository: string, actions = 'pull,push,delete'): Promise<string> {
    const query = `service=harbor-registry&scope=repository:${repository}:${actions}`
    const reply = await send(`${this.url}/service/token?${query}`, 'GET', { as })
    if (reply.status !== 200) throw new Error(`no token: ${reply.status} ${reply.text}`)
    return (reply.json as { token: string }).token
  }

  v2(method: string, path: string, token: string | null, sent: Sent = {}): Promise<Reply> {
    const authorization: Record<string, string> = token === null ? {} : { Authorization: `Bearer ${token}` }
    return send(`${this.url}/v2/${path}`, method, { ...sent, headers: { ...authorization, ...sent.headers } })
  }

  async pushBlob(
    repository: string,
    token: string,
    bytes: Uint8Array,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const started = await this.v2('POST', `${repository}/blobs/uploads/`, token, { headers })
    if (started.status !== 202) return started
    const at = new URL(started.headers.get('location')!, this.url)
    at.searchParams.set('digest', digestOf(bytes))
    return send(at.href, 'PUT', {
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/octet-stream', ...headers },
      body: bytes,
    })
  }

  /** An image of one layer of random bytes. @param headers of each request. @throws when any step is refused. */
  async pushImage(
    repository: string,
    tag: string,
    token: string,
    layerBytes = 1024,
    headers: Record<string, string> = {},
  ): Promise<Image> {
    const layer = randomBytes(layerBytes)
    const config = Buffer.from(
      JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
    )
    for (const bytes of [config, layer]) {
      const { status, text } = await this.pushBlob(repository, token, bytes, headers)
      if (status !== 201) throw new Error(`blob of ${repository}: ${status} ${text}`)
    }
    const described = (bytes: Buffer, mediaType: string) => ({ mediaType, digest: digestOf(bytes), size: bytes.length })
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: IMAGE,
        config: described(config, 'application/vnd.oci.image.config.v1+json'),
        layers: [described(layer, 'application/vnd.oci.image.layer.v1.tar+gzip')],
      }),
    )
    const put = await this.v2('PUT', `${repository}/manifests/${tag}`, token, {
      headers: { 'Content-Type': IMAGE, ...headers },
      body: manifest,
    })
    if (put.status !== 201) throw new Error(`manifest of ${repository}: ${put.status} ${put.text}`)
    return { digest: digestOf(manifest), layer: digestOf(layer), layerBytes }
  }

  pull(repository: string, reference: string, token: string | null): Promise<Reply> {
    return this.v2('GET', `${repository}/manifests/${reference}`, token, { headers: { Accept: IMAGE } })
  }
}

export type Image = { digest: string; layer: string; layerBytes: number }
const IMAGE = 'application/vnd.oci.image.manifest.v1+json'

export const idIn = (reply: Reply): number => Number(reply.headers.get('location')!.split('/').at(-1))

/** Asks until the answer is there. @throws with the last answer after `ms`. */
export async function until<T>(
  what: string,
  ask: () => Promise<T>,
  isIt: (answer: T) => boolean,
  ms = 10_000,
): Promise<T> {
  const deadline = performance.now() + ms
  for (;;) {
    const answer = await ask()
    if (isIt(answer)) return answer
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms} ms, at last ${JSON.stringify(answer)}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
