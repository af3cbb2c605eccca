import pg from 'pg'
import { joinWrites, PIPELINED } from './pipeline.ts'
import { ServerSilent, type SilenceWatch } from './silence.ts'

/** A connection on which a read waits for longer is no place to queue up. */
const STUCK_MS = 250
/** SQLSTATE of a server that ends our connection, and has not answered. */
const SHUTTING_DOWN = /^57P0[1-5]$/

/** Postgres answered, and will not do it: nothing that was asked is done or may yet be. */
export const saidNo = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && !SHUTTING_DOWN.test(error.code ?? '')

/** Somebody ended the connection: another may answer at once. Not of a server that is silent or refuses, where to ask again only takes more time. */
const wasCut = (error: unknown): boolean => {
  if (error instanceof pg.DatabaseError) return SHUTTING_DOWN.test(error.code ?? '')
  const { code, message } = error as NodeJS.ErrnoException
  return (
    code === 'ECONNRESET' ||
    code === 'EPIPE' ||
    message === 'Connection terminated unexpectedly' ||
    message === 'Client has encountered a connection error and is not queryable'
  )
}

type Waiting = {
  readonly query: pg.QueryConfig
  readonly resolve: (result: pg.QueryResult | Promise<pg.QueryResult>) => void
  readonly reject: (error: unknown) => void
  settled: boolean
}

/**
 * Reads that share one connection and do not wait for each other's answers. Behind one that waits for a lock all others would: those are
 * asked `apart`, on connections of their own, and so is what was under way when the connection breaks. Reads may be repeated: one whose own
 * connection is cut is asked once more.
 */
export class PipelinedReads implements AsyncDisposable {
  #lane: Lane | null = null
  readonly #config: pg.ClientConfig
  readonly #watch: SilenceWatch
  readonly #apart: (query: pg.QueryConfig) => Promise<pg.QueryResult>

  constructor(config: pg.ClientConfig, watch: SilenceWatch, apart: (query: pg.QueryConfig) => Promise<pg.QueryResult>) {
    this.#config = config
    this.#watch = watch
    this.#apart = (query) =>
      apart(query).catch((error: unknown) => (wasCut(error) ? apart(query) : Promise.reject(error)))
  }

  readonly run = (query: pg.QueryConfig): Promise<pg.QueryResult> => {
    const lane = (this.#lane ??= new Lane(this.#config, this.#watch, this.#apart, (gone) => {
      if (this.#lane === gone) this.#lane = null
    }))
    return lane.stuck ? this.#apart(query) : lane.ask(query)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lane?.end()
  }
}

class Lane {
  readonly #client: pg.Client
  readonly #connected: Promise<unknown>
  readonly #watch: SilenceWatch
  readonly #apart: (query: pg.QueryConfig) => Promise<pg.QueryResult>
  /** In the order of asking, which is that of answers; a set would leave to the collector what it held. */
  readonly #waiting: Waiting[] = []
  /** When the last answer came, or the first question after a rest. */
  #movedAt = 0
  #ticking: NodeJS.Timeout | null = null
  #stuck = false

  constructor(
    config: pg.ClientConfig,
    watch: SilenceWatch,
    apart: (query: pg.QueryConfig) => Promise<pg.QueryResult>,
    onGone: (lane: Lane) => void,
  ) {
    this.#watch = watch
    this.#apart = apart
    this.#client = new pg.Client({ ...config, ...PIPELINED })
    const gone = () => onGone(this)
    this.#client.on('error', gone)
    this.#client.on('end', gone)
    this.#connected = this.#client.connect()
    this.#connected.catch(gone)
  }

  get stuck(): boolean {
    return this.#stuck
  }

  async ask(query: pg.QueryConfig): Promise<pg.QueryResult> {
    try {
      await this.#connected
    } catch (error) {
      if (wasCut(error)) return this.#apart(query)
      throw error
    }
    joinWrites(this.#client)
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { query, resolve, reject, settled: false }
      this.#waiting.push(waiting)
      if (this.#waiting.length === 1) this.#movedAt = performance.now()
      this.#ticking ??= setInterval(() => this.#tick(), STUCK_MS)
      this.#watch
        .ask(this.#client, () => this.#client.query(query))
        .then(
          (result) => this.#settle(waiting, () => resolve(result)),
          (error: unknown) => this.#settle(waiting, () => this.#failed(waiting, error)),
        )
    })
  }

  end(): Promise<void> {
    return this.#client.end()
  }

  #settle(waiting: Waiting, tell: () => void) {
    this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    this.#stuck = false
    this.#movedAt = performance.now()
    if (!waiting.settled) tell()
  }

  #failed({ query, resolve, reject }: Waiting, error: unknown) {
    if (saidNo(error) || error instanceof ServerSilent) reject(error)
    else resolve(this.#apart(query))
  }

  /** One timer however many ask: to start one for each would cost more than the rest of asking. */
  #tick() {
    if (this.#waiting.length === 0) {
      clearInterval(this.#ticking!)
      this.#ticking = null
    } else if (performance.now() - this.#movedAt > STUCK_MS) this.#overtake()
  }

  /** The first is what all others wait for. */
  #overtake() {
    this.#stuck = true
    const [, ...behind] = this.#waiting
    for (const waiting of behind) {
      if (waiting.settled) continue
      waiting.settled = true
      waiting.resolve(this.#apart(waiting.query))
    }
  }
}
