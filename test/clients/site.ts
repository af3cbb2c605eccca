import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'

/** One answered request, as the access log of the door tells it. */
export type Access = { method: string; url: string; status: number; agent?: string }

export type Cell = { shape: 'single' | 'split'; store: 'files' | 's3' }

export type Site = AsyncDisposable & {
  readonly haven: HavenInstallation
  /** 127.0.0.1:<port> */
  readonly host: string
  /** A temporary folder for what clients keep. */
  readonly folder: string
  /** The access log's lines that fit; waits until there are `atLeast` of them. @throws with the lines that were there instead, after 20 s */
  accesses(what: string, fits: (access: Access) => boolean, atLeast?: number): Promise<Access[]>
  /** Waits until the log shows that `count` blobs came into the repository by a mount. @throws when there are fewer */
  mounted(repository: string, count: number): Promise<void>
  /** How many bytes of blobs were sent into the repository: requests with a body, by their number. */
  uploads(repository: string): Promise<Access[]>
  /** A manifest as the registry has it. @throws with status and body when it has none */
  manifest(repository: string, reference: string): Promise<{ digest: string; mediaType: string; body: Manifest }>
  /** What Haven says of what is in an artifact of the library, such as `app/artifacts/1`. @throws with status and body when there is none */
  content(artifact: string): Promise<Content>
  /** Whether a reference exists. */
  has(repository: string, reference: string): Promise<boolean>
  /** Gives the manifest `from` of a repository `count` more tags, `t0000` and up: more than one page of any client. */
  addTags(repository: string, from: string, count: number): Promise<string[]>
}

export type Descriptor = {
  mediaType: string
  digest: string
  size: number
  artifactType?: string
  annotations?: Record<string, string>
  platform?: { os: string; architecture: string }
}
export type Content = {
  format: string
  attributes: object
  additions: { name: string; href: string }[]
  files: { title?: string; href: string; sizeBytes: number }[]
}
export type Manifest = {
  mediaType: string
  artifactType?: string
  config?: Descriptor
  layers?: Descriptor[]
  manifests?: Descriptor[]
  subject?: Descriptor
  annotations?: Record<string, string>
}

const PATIENCE_MS = 20_000
const TAGS_PER_PUT = 100

/** Haven in one of its shapes on one of its stores. Disposing it stops and deletes all. */
export async function startSite({ shape, store }: Cell): Promise<Site> {
  // In lower case, which mkdtemp's names are not: podman makes the name of an image of a layout's path.
  const folder = join(tmpdir(), `haven-clients-${crypto.randomUUID()}`)
  mkdirSync(folder)
  const s3: VersityGw | null = store === 's3' ? await startVersityGw() : null
  const env: Record<string, string> = s3 ? { ...s3.settings, S3_BUCKET: 'haven' } : {}
  const haven = await startHaven({ shape, env }).catch(async (error: unknown) => {
    await s3?.[Symbol.asyncDispose]()
    throw error
  })
  const authorization = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`
  const v2 = (path: string, more: { method?: string; body?: string; headers?: Record<string, string> } = {}) =>
    fetch(`${haven.url}/v2/${path}`, { ...more, headers: { authorization, ...more.headers } })

  const accesses: Site['accesses'] = async (what, fits, atLeast = 1) => {
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const all = readAccesses(join(haven.home, 'logs/services/proxy.log'))
      const found = all.filter(fits)
      if (found.length >= atLeast) return found
      if (performance.now() > deadline) {
        const last = all.slice(-30).map(({ method, url, status }) => `${method} ${url.slice(0, 200)} ${status}`)
        throw new Error(`${what}: ${found.length} of ${atLeast} requests; the last ones were\n${last.join('\n')}`)
      }
      await sleep(50) // the log is written behind the answers
    }
  }

  return {
    haven,
    host: haven.host,
    folder,
    accesses,
    async mounted(repository, count) {
      const start = `/v2/${repository}/blobs/uploads/`
      const fits = ({ method, url, status }: Access) =>
        method === 'POST' && url.startsWith(start) && url.includes('mount=') && status === 201
      await accesses(`mounts into ${repository}`, fits, count)
    },
    async uploads(repository) {
      const start = `/v2/${repository}/blobs/uploads/`
      // A request of ours behind the client's: when the log has it, it has all before it.
      const mark = `blobs/sha256:${'0'.repeat(56)}${Math.floor(Math.random() * 16 ** 8)
        .toString(16)
        .padStart(8, '0')}`
      await v2(`${repository}/${mark}`)
      await accesses('the marker', ({ url }) => url.endsWith(mark))
      return accesses('uploads', ({ method, url }) => method === 'PATCH' && url.startsWith(start), 0)
    },
    async manifest(repository, reference) {
      const response = await v2(`${repository}/manifests/${reference}`)
      const text = await response.text()
      if (!response.ok) throw new Error(`${repository} ${reference}: ${response.status} ${text}`)
      return {
        digest: response.headers.get('docker-content-digest') ?? '',
        mediaType: response.headers.get('content-type') ?? '',
        body: JSON.parse(text) as Manifest,
      }
    },
    async content(artifact) {
      const url = `${haven.url}/api/haven/v1/projects/library/repositories/${artifact}/content`
      const response = await fetch(url, { headers: { authorization } })
      const text = await response.text()
      if (!response.ok) throw new Error(`${artifact}: ${response.status} ${text}`)
      return JSON.parse(text) as Content
    },
    async has(repository, reference) {
      const { status } = await v2(`${repository}/manifests/${reference}`, { method: 'HEAD' })
      if (status !== 200 && status !== 404) throw new Error(`HEAD ${repository} ${reference}: ${status}`)
      return status === 200
    },
    async addTags(repository, from, count) {
      const response = await v2(`${repository}/manifests/${from}`)
      const [body, type] = [await response.text(), response.headers.get('content-type') ?? '']
      const digest = response.headers.get('docker-content-digest')
      const tags = Array.from({ length: count }, (_, i) => `t${String(i).padStart(4, '0')}`)
      for (let at = 0; at < tags.length; at += TAGS_PER_PUT) {
        const query = tags
          .slice(at, at + TAGS_PER_PUT)
          .map((tag) => `tag=${tag}`)
          .join('&')
        const put = { method: 'PUT', body, headers: { 'content-type': type } }
        const answer = await v2(`${repository}/manifests/${digest}?${query}`, put)
        if (answer.status !== 201) throw new Error(`tags of ${repository}: ${answer.status} ${await answer.text()}`)
      }
      return tags
    },
    async [Symbol.asyncDispose]() {
      await haven[Symbol.asyncDispose]()
      await s3?.[Symbol.asyncDispose]()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function readAccesses(file: string): Access[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [] // nothing was asked yet
    throw error
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  return whole
    .split('\n')
    .filter((line) => line.includes('"msg":"access"'))
    .map((line) => JSON.parse(line) as Access)
}
