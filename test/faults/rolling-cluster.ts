import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort, queryOnce } from '@haven/testkit'
import { lacking } from '@haven/testkit/tools'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { parse } from 'yaml'
import { migrate, splitEnvironment, startService, variable, type Started } from '../flows/split.ts'
import { filesBelow, sleep, until } from './harness.ts'

/** Each of them runs twice. The log collector, which has files of its own, is left out. */
export const stateless = ['token', 'registry', 'core', 'jobservice', 'registryctl', 'exporter', 'proxy'] as const
export type Stateless = (typeof stateless)[number]

/** The numbers by which Kubernetes would run our pods. */
const { lifecycle, startupProbe, readinessProbe } = everyPod()
/** From what happened to a pod until no node sends it new connections: less than the pause before the signal. */
const HEARD_MS = 1000
const BUCKET = 'haven'

type Probe = { httpGet: { path: string }; periodSeconds: number; timeoutSeconds?: number; failureThreshold: number }

function everyPod(): {
  lifecycle: { preStop: { sleep: { seconds: number } } }
  startupProbe: Probe
  readinessProbe: Probe
} {
  const text = readFileSync(new URL('../../deploy/kubernetes/base/every-pod.yaml', import.meta.url), 'utf8')
  return parse(text).spec.template.spec.containers[0]
}

/** A Service of Kubernetes: new connections go in turn to those pods that are ready, and nothing above TCP is known of them. */
class Balancer implements AsyncDisposable {
  readonly endpoints = new Set<number>()
  readonly #sockets = new Set<Socket>()
  readonly #server: Server
  #turn = 0

  private constructor() {
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => this.#accept(client))
  }

  static async open(): Promise<Balancer> {
    const balancer = new Balancer()
    const port = await freePort()
    await new Promise<void>((resolve) => balancer.#server.listen(port, '127.0.0.1', resolve))
    return balancer
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  #accept(client: Socket): void {
    const ready = [...this.endpoints]
    const port = ready[this.#turn++ % ready.length]
    client.on('error', () => {}) // `close` follows
    if (port === undefined) return void client.resetAndDestroy()
    const pod = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    for (const [one, other] of [
      [client, pod],
      [pod, client],
    ] as const) {
      this.#sockets.add(one)
      one.pipe(other)
      one.once('close', () => {
        this.#sockets.delete(one)
        // A reset is passed on as such, as routers of packets do.
        if (one.errored) other.resetAndDestroy()
        else if (!one.readableEnded) other.destroy()
      })
    }
    pod.on('error', () => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** One of the two of a service. Its container may be started again, at the same address. */
export class Pod {
  readonly name: Stateless
  readonly #env: Record<string, string>
  readonly #balancer: Balancer
  readonly #port: number
  readonly #healthPort: number
  #process: Started | null = null
  #terminating = false
  ready = false

  constructor(name: Stateless, balancer: Balancer, env: Record<string, string>, port: number, healthPort: number) {
    this.name = name
    this.#balancer = balancer
    this.#port = port
    this.#healthPort = healthPort
    const own = { [`${variable(name)}_PORT`]: String(port) }
    this.#env = { ...env, ...own, ...(name === 'proxy' && { PROXY_METRICS_PORT: String(healthPort) }) }
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** @throws when it ends instead, with what it printed. */
  async start(): Promise<void> {
    const process = startService(this.name, this.#env)
    this.#process = process
    this.#set(false)
    let ended: number | string | null = null
    void process.exited.then((how) => {
      ended = how
      setTimeout(() => this.#process === process && this.#set(false), HEARD_MS).unref()
    })
    const { periodSeconds, failureThreshold } = startupProbe
    const started = async () => {
      if (ended !== null) throw new Error(`${this.name} ended with ${ended}: ${process.output()}`)
      return this.#asks(startupProbe)
    }
    for (let tries = 0; !(await started()); tries++) {
      if (tries === failureThreshold) throw new Error(`${this.name} does not start: ${process.output()}`)
      await sleep(tries === 0 ? 500 : periodSeconds * 1000)
    }
    void this.#probe(process)
    await until(`${this.name} is ready`, () => this.ready || ended !== null, 60_000)
  }

  async #probe(process: Started): Promise<void> {
    let failures = 0
    const { child } = process
    const counts = () => !this.#terminating && child.exitCode === null && child.signalCode === null
    while (counts()) {
      const ok = await this.#asks(readinessProbe)
      failures = ok ? 0 : failures + 1
      if (counts() && (ok || failures === readinessProbe.failureThreshold)) this.#set(ok)
      await sleep(readinessProbe.periodSeconds * 1000)
    }
  }

  async #asks({ httpGet, timeoutSeconds = 1 }: Probe): Promise<boolean> {
    const url = `http://127.0.0.1:${this.#healthPort}${httpGet.path}`
    // Each probe has a connection of its own.
    const headers = { connection: 'close' }
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(timeoutSeconds * 1000) }).catch(() => null)
    await answer?.body?.cancel()
    return answer?.ok ?? false
  }

  #set(ready: boolean): void {
    this.ready = ready
    if (ready) this.#balancer.endpoints.add(this.#port)
    else this.#balancer.endpoints.delete(this.#port)
  }

  /** kill -9, as by a lack of memory. */
  async kill(): Promise<void> {
    this.#process?.child.kill('SIGKILL')
    await this.#process?.exited
  }

  /** What the end of a pod is: taken out of its Service, left alone for a moment, told to stop. The exit code. */
  async terminate(): Promise<number | string> {
    const { child, exited } = this.#process!
    this.#terminating = true
    setTimeout(() => this.#set(false), HEARD_MS)
    await sleep(lifecycle.preStop.sleep.seconds * 1000)
    child.kill('SIGTERM')
    return exited
  }
}

/** Two of each stateless service behind a balancer of their own, on one Postgres, one Redis and one S3 server. */
export class Cluster implements AsyncDisposable {
  readonly url: string
  readonly #env: Record<string, string>
  readonly #s3: VersityGw
  readonly #balancers: ReadonlyMap<Stateless, Balancer>
  readonly #stack: AsyncDisposableStack
  readonly #pods: Pod[] = []

  private constructor(
    env: Record<string, string>,
    s3: VersityGw,
    balancers: ReadonlyMap<Stateless, Balancer>,
    stack: AsyncDisposableStack,
  ) {
    this.#env = env
    this.#s3 = s3
    this.#balancers = balancers
    this.#stack = stack
    this.url = balancers.get('proxy')!.url
  }

  static readonly lack = lacking('versitygw')

  static async start(more: Record<string, string> = {}): Promise<Cluster> {
    const stack = new AsyncDisposableStack()
    const folder = mkdtempSync(join(tmpdir(), 'haven-cluster-'))
    stack.defer(() => rmSync(folder, { recursive: true, force: true }))
    const s3 = stack.use(await startVersityGw())
    const balancers = new Map<Stateless, Balancer>()
    for (const name of stateless) balancers.set(name, stack.use(await Balancer.open()))
    const { LOG_COLLECTOR_URL: _, ...alone } = await splitEnvironment(folder)
    const env = {
      ...alone,
      ...Object.fromEntries([...balancers].map(([name, { url }]) => [`${variable(name)}_URL`, url])),
      HAVEN_EXTERNAL_URL: balancers.get('proxy')!.url,
      PROXY_SOCKETS_PER_CLIENT: '4096',
      LOG_LEVEL: 'warn',
      ...s3.settings,
      S3_BUCKET: BUCKET,
      ...more,
    }
    const cluster = new Cluster(env, s3, balancers, stack)
    stack.defer(async () => void (await Promise.all(cluster.#pods.map((pod) => pod.kill()))))
    try {
      await migrate(env)
      await Promise.all(stateless.flatMap((name) => [cluster.add(name), cluster.add(name)]))
    } catch (error) {
      await stack[Symbol.asyncDispose]()
      throw error
    }
    return cluster
  }

  get pods(): readonly Pod[] {
    return this.#pods
  }

  of(name: Stateless): Pod[] {
    return this.#pods.filter((pod) => pod.name === name)
  }

  /** One more of a service; resolves when it is ready. */
  async add(name: Stateless): Promise<Pod> {
    const port = await freePort()
    const pod = new Pod(name, this.#balancers.get(name)!, this.#env, port, name === 'proxy' ? await freePort() : port)
    this.#pods.push(pod)
    await pod.start()
    return pod
  }

  /** Ends one for good. The exit code. */
  async remove(pod: Pod): Promise<number | string> {
    const code = await pod.terminate()
    this.#pods.splice(this.#pods.indexOf(pod), 1)
    return code
  }

  query<Row extends Record<string, unknown>>(sql: string): Promise<Row[]> {
    return queryOnce<Row>(this.#env.DATABASE_URL!, sql)
  }

  /** What lies in the bucket: objects with their sizes, and what is left of uploads. */
  contents(): { objects: Map<string, number>; unfinished: string[] } {
    const objects = new Map<string, number>()
    const unfinished: string[] = []
    for (const [name, size] of filesBelow(join(this.#s3.folder, BUCKET))) {
      if (name.startsWith('o/')) objects.set(name, size)
      else unfinished.push(name)
    }
    return { objects, unfinished }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]()
  }
}
