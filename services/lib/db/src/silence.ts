import pg from 'pg'

/** A query that waits for longer makes us ask whether the server answers anybody. */
const SUSPICIOUS_MS = 2_500
/** How long it may take to say so: together no request waits longer than 5 s for a server that is gone (reliability.md F14). */
const PROBE_MS = 2_000
/** Between two looks at the clock. */
const LOOK_MS = 250

/** Nobody is there to answer: to ask again, on whatever connection, would only take more time. */
export class ServerSilent extends Error {
  constructor() {
    super('Connection terminated: Postgres does not answer')
    this.name = 'ServerSilent'
  }
}

/**
 * Finds out that a server is gone which did not say so: behind a firewall that began to drop, or on a machine that was switched off. A
 * slow statement is not that; nor is one that waits for a lock.
 */
export class SilenceWatch {
  readonly #config: pg.ClientConfig
  readonly #longestMs: number
  #probe: Promise<boolean> | null = null

  /** `longestMs`: no statement lasts longer, so that a connection which is silent for as long is dead though its server is not. */
  constructor(config: pg.ClientConfig, longestMs: number) {
    // The driver's own limit would count the time in which we did not listen.
    this.#config = { ...config, connectionTimeoutMillis: 0 }
    this.#longestMs = longestMs
  }

  /** Asks, and cuts the connection when nobody is there to answer: the query then fails as when a connection breaks. */
  async ask<T>(client: pg.ClientBase, query: () => Promise<T>): Promise<T> {
    let asking = true
    const suspect = async () => {
      const answers = await this.#answers()
      if (!asking) return
      if (!answers) cut(client, new ServerSilent())
      else stop = afterListening(this.#longestMs, () => cut(client, new Error('Connection terminated: it is silent')))
    }
    const timer = setTimeout(() => void suspect(), SUSPICIOUS_MS)
    let stop = () => clearTimeout(timer)
    try {
      return await query()
    } finally {
      asking = false
      stop()
    }
  }

  /** One probe for all who wait. */
  #answers(): Promise<boolean> {
    this.#probe ??= this.#connects().finally(() => {
      this.#probe = null
    })
    return this.#probe
  }

  async #connects(): Promise<boolean> {
    const client = new pg.Client(this.#config)
    client.on('error', () => undefined) // of a connection that is given up; the answer below is what counts
    const stop = afterListening(PROBE_MS, () => cut(client, new Error('Connection terminated: nobody answers')))
    try {
      await client.connect()
      return true
    } catch (error) {
      // It answered, though with a no: too many connections, starting up.
      return error instanceof pg.DatabaseError
    } finally {
      stop()
      cut(client, null)
    }
  }
}

/**
 * Calls `then` when sockets were listened to for so long. A process that was busy, or had no core, was told nothing meanwhile, though the
 * answer may lie in its socket: timers come before sockets in a turn of the loop. @returns what takes it back
 */
function afterListening(ms: number, then: () => void): () => void {
  let looks = Math.ceil(ms / LOOK_MS)
  const timer = setInterval(() => {
    looks -= 1
    if (looks > 0) return
    clearInterval(timer)
    then()
  }, LOOK_MS)
  return () => clearInterval(timer)
}

/** At once. The driver's own `end` says goodbye first, to which nobody answers. */
function cut(client: pg.ClientBase, why: Error | null): void {
  const { connection } = client as pg.ClientBase & { connection: { stream: { destroy(why?: Error): void } } }
  connection.stream.destroy(why ?? undefined)
}
