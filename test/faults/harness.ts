import { spawn } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, launcher, type HavenInstallation } from '@haven/testkit'
import { Client, newImage, type Image } from './client.ts'
import { History, tagValue, type Operation } from './history.ts'

/** A seed that is printed, so that a failing run can be run again: FAULTS_SEED. */
export function newSeed(of: string): number {
  const seed = Number(process.env.FAULTS_SEED ?? Math.floor(Math.random() * 2 ** 31))
  process.stderr.write(`${of}: FAULTS_SEED=${seed}\n`)
  return seed
}

/** Mulberry32, a public-domain generator: whole numbers below `below`, the same for the same seed. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Waits for a condition, and returns how long that took in ms. @throws when it does not come in time. */
export async function until(what: string, holds: () => Promise<boolean> | boolean, withinMs: number): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    if (await Promise.resolve(holds()).catch(() => false)) return performance.now() - startedAt
    if (performance.now() - startedAt > withinMs) throw new Error(`${what}: not within ${withinMs} ms`)
    await sleep(100)
  }
}

export const repositories = ['library/one', 'library/two', 'library/three'] as const
const TAGS = 3

export type Load = { history: History; stop(): Promise<void> }

/** Actors that push, move tags, pull, list, mount and delete, each by a sequence of its own drawn from the seed. */
export function startLoad(
  client: Client,
  seed: number,
  { actors = 8, signIn = false, history = new History() } = {},
): Load {
  let stopping = false
  const running = Array.from({ length: actors }, async (_, number) => {
    const actor = new Actor(number, client, history, randomOf(seed + number))
    while (!stopping) {
      await actor.act(signIn)
      await sleep(20)
    }
  })
  return {
    history,
    async stop() {
      stopping = true
      await Promise.all(running)
    },
  }
}

class Actor {
  readonly #client: Client
  readonly #history: History
  readonly #random: (below: number) => number
  readonly #number: number
  /** Manifests without a tag that this actor may delete: nobody else touches them. */
  readonly #mine: { repository: string; digest: string }[] = []
  #last: { repository: string; image: Image } | null = null

  constructor(number: number, client: Client, history: History, random: (below: number) => number) {
    this.#number = number
    this.#client = client
    this.#history = history
    this.#random = random
  }

  async act(signIn: boolean): Promise<void> {
    const dice = this.#random(100)
    if (dice < 35) await this.#push(`t${this.#random(TAGS)}`)
    else if (dice < 50) await this.#push(null)
    else if (dice < 70) await this.#pull()
    else if (dice < 78) await this.#pushAgain()
    else if (dice < 84) await this.#mountLast()
    else if (dice < 89) await this.#deleteOne()
    else if (dice < 94) await this.#ownTag()
    else if (signIn)
      await this.#attempt('sign in', '', 'token', () => this.#client.at(this.#client.url).signIn(repositories))
    else await this.#listTags()
  }

  #attempt(
    kind: Operation['kind'],
    repository: string,
    subject: string,
    act: Parameters<History['attempt']>[1],
    value: string | null = null,
  ) {
    return this.#history.attempt({ client: this.#number, kind, repository, subject, value }, act)
  }

  #somewhere(): string {
    return repositories[this.#random(repositories.length)]!
  }

  async #blobs(repository: string, image: Image): Promise<boolean> {
    for (const bytes of image.layers) {
      const digest = this.#history.rememberSize(bytes)
      const pushed = await this.#attempt('push blob', repository, digest, () =>
        this.#client.pushBlob(repository, bytes),
      )
      if (pushed?.status !== 201) return false
    }
    return true
  }

  /** By tag, or by digest when there is none. */
  async #put(repository: string, tag: string | null, image: Image): Promise<boolean> {
    this.#history.remember(image.manifest)
    const what = { client: this.#number, repository }
    const answer = await this.#history.attempt(
      [
        { ...what, kind: 'push manifest', subject: image.digest },
        ...(tag === null ? [] : [{ ...what, kind: 'write tag' as const, subject: tag, value: image.digest }]),
      ],
      () => this.#client.putManifest(repository, tag ?? image.digest, image.manifest),
    )
    return answer?.status === 201
  }

  async #push(tag: string | null): Promise<void> {
    const repository = this.#somewhere()
    const image = newImage(this.#random)
    if (!(await this.#blobs(repository, image)) || !(await this.#put(repository, tag, image))) return
    this.#last = { repository, image }
    if (tag === null) this.#mine.push({ repository, digest: image.digest })
  }

  /** As a client whose push broke off: all of it once more. */
  async #pushAgain(): Promise<void> {
    if (!this.#last) return
    const { repository, image } = this.#last
    // Not a manifest that this actor may have deleted: whether it is there would then depend on the order.
    if (this.#mine.some((mine) => mine.digest === image.digest)) await this.#blobs(repository, image)
    else if (await this.#blobs(repository, image)) await this.#put(repository, `again-${this.#number}`, image)
  }

  async #mountLast(): Promise<void> {
    if (!this.#last) return
    const to = this.#somewhere()
    const { repository, image } = this.#last
    for (const bytes of image.layers) {
      const digest = this.#history.rememberSize(bytes)
      const mounted = await this.#attempt('push blob', to, digest, async () => {
        const answer = await this.#client.mount(to, digest, repository)
        // An upload was opened instead, which is an answer, but no promise about the blob.
        return answer.status === 202 ? { ...answer, status: 404 } : answer
      })
      if (mounted?.status !== 201) return
    }
  }

  async #pull(): Promise<void> {
    const repository = this.#somewhere()
    const tag = `t${this.#random(TAGS)}`
    const what = { client: this.#number, kind: 'read tag' as const, repository, subject: tag }
    await this.#history.attempt(what, () => this.#client.getManifest(repository, tag), tagValue)
  }

  async #deleteOne(): Promise<void> {
    const one = this.#mine.shift()
    if (!one) return
    const { repository, digest } = one
    if (this.#last?.image.digest === digest) this.#last = null
    await this.#attempt('delete manifest', repository, digest, () => this.#client.deleteManifest(repository, digest))
  }

  /** A tag that only this actor writes: set, then deleted. */
  async #ownTag(): Promise<void> {
    const repository = this.#somewhere()
    const tag = `own-${this.#number}`
    const image = newImage(this.#random)
    if (!(await this.#blobs(repository, image)) || !(await this.#put(repository, tag, image))) return
    await this.#attempt('write tag', repository, tag, () => this.#client.deleteManifest(repository, tag), null)
  }

  async #listTags(): Promise<void> {
    const repository = this.#somewhere()
    await this.#attempt('list tags', repository, '', () => this.#client.send('GET', `/v2/${repository}/tags/list`))
  }
}

export type Replica = AsyncDisposable & {
  readonly url: string
  readonly pid: number
  /** The exit code or signal. */
  readonly exited: Promise<number | string>
}

/** A second front process of the installation, on a port of its own: for a test to break while the first goes on. */
export async function startReplica(haven: HavenInstallation, env: Record<string, string> = {}): Promise<Replica> {
  const [port, metricsPort] = [String(await freePort()), String(await freePort())]
  const own = { HAVEN_PROCESS: 'replica', PROXY_PORT: port, PROXY_METRICS_PORT: metricsPort }
  const child = spawn(process.execPath, [launcher, 'start', '--services', 'proxy,token,registry,core'], {
    env: { ...environmentOf(haven.processes().front!), ...own, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => (output = (output + data.toString()).slice(-4000)))
  }
  let ended: number | string | null = null
  const exited = new Promise<number | string>((resolve, reject) => {
    child.once('exit', (code, signal) => resolve((ended = code ?? signal ?? 0)))
    child.once('error', reject)
  })
  const url = `http://127.0.0.1:${port}`
  const client = new Client(url)
  const ready = async () => ended !== null || (await client.send('GET', '/v2/', { timeoutMs: 5000 })).status === 200
  try {
    await until('a second front process', ready, 60_000)
    if (ended !== null) throw new Error(`it ended with ${String(ended)}`)
  } catch (error) {
    child.kill('SIGKILL') // it would keep the whole run from ending
    throw new Error(`a second front process did not start: ${output}`, { cause: error })
  } finally {
    client.close()
  }
  return {
    url,
    pid: child.pid!,
    exited,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

function environmentOf(pid: number): NodeJS.ProcessEnv {
  const text = readFileSync(`/proc/${pid}/environ`, 'utf8')
  const pairs = text.split('\0').filter((pair) => pair.includes('='))
  const env = Object.fromEntries(
    pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
  )
  // The channel of another child with its supervisor.
  delete env.NODE_CHANNEL_FD
  delete env.NODE_CHANNEL_SERIALIZATION_MODE
  return env
}

/** Every process that was started for an installation and still runs, by what is in its environment or on its command line. */
export function processesOf(home: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return ['environ', 'cmdline'].some((file) => readFileSync(`/proc/${pid}/${file}`, 'utf8').includes(home))
      } catch {
        return false // it ended meanwhile, or is another user's
      }
    })
    .map(Number)
}

/** kill -9. False when there is no such process now. */
export function kill(haven: HavenInstallation, name: string): boolean {
  const pid = haven.processes()[name]
  if (pid === null || pid === undefined) return false
  try {
    // Postgres of an embedded installation is a child of its own; its backends see it go and end by themselves.
    process.kill(pid, 'SIGKILL')
    return true
  } catch {
    return false // it had ended, and the supervisor has not yet said so
  }
}

/** All processes run, the health API says so of every part, and the registry answers. */
export async function isHealthy(haven: HavenInstallation, client: Client): Promise<boolean> {
  if (Object.values(haven.processes()).includes(null)) return false
  const { status } = await client.api<{ status: string }>('GET', '/health')
  const { status: answered } = await client.send('GET', '/v2/', { timeoutMs: 2000 })
  return status === 'healthy' && answered < 300
}

const ENDED = ['Success', 'Error', 'Stopped']

/** Begins a garbage collection; the id of its execution. */
export async function startGarbageCollection(client: Client, parameters: object = {}): Promise<number> {
  const schedule = { schedule: { type: 'Manual' }, parameters }
  const answer = await client.send('POST', '/api/v2.0/system/gc/schedule', {
    headers: { 'content-type': 'application/json', authorization: client.basic },
    body: Buffer.from(JSON.stringify(schedule)),
  })
  if (answer.status !== 201) throw new Error(`garbage collection was not begun: ${answer.status} ${answer.body}`)
  return Number(answer.headers.location!.split('/').at(-1))
}

/** How a garbage collection ended. @throws when it does not. */
export async function garbageCollectionEnded(client: Client, id: number, withinMs = 60_000): Promise<string> {
  let status = ''
  const ended = async () => {
    status = (await client.api<{ job_status: string }>('GET', `/system/gc/${id}`)).job_status
    return ENDED.includes(status)
  }
  await until(`garbage collection ${id}`, ended, withinMs)
  return status
}

/**
 * Without the grace that clients are promised, collection takes all that it may ever take. The tables are locked because rows would be in
 * another order than pushes lock them.
 */
export async function endPromises(haven: HavenInstallation): Promise<void> {
  for (const table of ['artifacts.blobs', 'artifacts.blob_links']) {
    await haven.query(
      `begin; lock table ${table} in exclusive mode; update ${table} set promised_until = now() - interval '1 minute'; commit`,
    )
  }
}

/** Collects garbage once; how it ended. */
export const collectGarbage = async (client: Client) =>
  garbageCollectionEnded(client, await startGarbageCollection(client))

/**
 * The files below a store's folder with their sizes, by their names in it. Without what a process tries its store with: that has no row, and is
 * gone in a moment unless the process is killed in that moment.
 */
export function filesBelow(folder: string, prefix = ''): Map<string, number> {
  const files = new Map<string, number>()
  for (const name of readdirSync(join(folder, prefix), { recursive: true, encoding: 'utf8' })) {
    const path = join(folder, prefix, name)
    const found = statSync(path, { throwIfNoEntry: false })
    if (found?.isFile() && !(found.size < 100 && isProbe(path))) files.set(join(prefix, name), found.size)
  }
  return files
}

function isProbe(path: string): boolean {
  try {
    return readFileSync(path, 'latin1').startsWith('probe o/')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true // and is gone by now
    throw error
  }
}

/** Files below the store's folder, by what they are: whole objects with their sizes, and what is still arriving. */
export function filesOf(haven: HavenInstallation): { objects: Map<string, number>; incoming: string[] } {
  const store = join(haven.home, 'blobs')
  return { objects: filesBelow(store, 'o'), incoming: [...filesBelow(store, 'incoming').keys()] }
}

/** I5, I7 and I8 at rest: what the store holds beside or against the record. Empty when they agree. */
export function disagreements(haven: HavenInstallation): Promise<string[]> {
  const { objects, incoming } = filesOf(haven)
  return compare((sql) => haven.query(sql), objects, incoming)
}

/** The same of any store: its objects with their sizes, and what is still arriving, named by the id of its upload. */
export async function compare(
  query: <Row extends Record<string, unknown>>(sql: string) => Promise<Row[]>,
  objects: ReadonlyMap<string, number>,
  incoming: readonly string[],
): Promise<string[]> {
  const rows = await query<{ key: string; size: string; kind: string }>(`
    select l.key, b.size_bytes::text as size, 'blob' as kind from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id
    union all select key, null, 'upload' from artifacts.uploads
    union all select key, null, 'trash' from artifacts.trash`)
  const known = new Map(rows.map((row) => [row.key, row]))
  const said: string[] = []
  for (const { key, size, kind } of rows) {
    if (kind !== 'blob') continue
    const stored = objects.get(key)
    if (stored === undefined) said.push(`I5: ${key} is recorded and missing`)
    else if (stored !== Number(size)) said.push(`I7: ${key} is partial`)
  }
  for (const key of objects.keys()) if (!known.has(key)) said.push(`I5: ${key} is an orphan`)
  const uuids = new Set(rows.filter(({ kind }) => kind !== 'blob').map(({ key }) => key.split('/').at(-1)!))
  for (const name of incoming) {
    if (!uuids.has(name.split('/').at(-1)!.split('.')[0]!)) said.push(`I8: ${name} belongs to no upload`)
  }
  return said
}
