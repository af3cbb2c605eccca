import pg from 'pg'
import type { SilenceWatch } from './silence.ts'

/** "schema.table", or `lost`. */
export type AnnouncedTable = string
type Listener = (table: AnnouncedTable) => void

const CHANNEL = 'haven'
const RECONNECT_MS = 500
/** Who only listens hears nothing either way: it must ask to learn that its connection is dead. */
const HEARTBEAT_MS = 10_000

/**
 * Hears which tables changed (the `announce` triggers of the schema), so that caches of other processes drop what they hold.
 * When the connection is lost, listeners get `lost` and must drop everything: a change may have gone by unheard.
 */
export class Announcements implements AsyncDisposable {
  readonly #config: pg.ClientConfig
  readonly #watch: SilenceWatch
  readonly #listeners = new Set<Listener>()
  #client: pg.Client | null = null
  #reconnect: NodeJS.Timeout | undefined
  #heartbeat: NodeJS.Timeout | undefined
  #closed = false

  constructor(config: pg.ClientConfig, watch: SilenceWatch) {
    this.#config = config
    this.#watch = watch
  }

  /** Calls `listener` with "schema.table" after each commit that changed it. Returns how to stop. */
  on(listener: Listener): () => void {
    this.#listeners.add(listener)
    if (this.#listeners.size === 1) void this.#connect()
    return () => this.#listeners.delete(listener)
  }

  async #connect(): Promise<void> {
    if (this.#client || this.#closed) return
    const client = new pg.Client({ ...this.#config, keepAlive: true })
    this.#client = client
    client.on('notification', (message) => this.#tell(message.payload ?? 'lost'))
    client.on('error', () => this.#lost(client))
    client.on('end', () => this.#lost(client))
    try {
      await client.connect()
      await client.query(`listen ${CHANNEL}`)
      this.#tell('lost') // what changed before we listened
      this.#heartbeat = setInterval(() => void this.#beat(client), HEARTBEAT_MS)
    } catch {
      this.#lost(client) // says `lost` to everyone and tries again
    }
  }

  async #beat(client: pg.Client) {
    await this.#watch.ask(client, () => client.query('select 1')).catch(() => this.#lost(client))
  }

  #lost(client: pg.Client) {
    if (this.#client !== client) return
    this.#client = null
    clearInterval(this.#heartbeat)
    this.#tell('lost')
    client.end().catch(() => undefined)
    if (!this.#closed) this.#reconnect = setTimeout(() => void this.#connect(), RECONNECT_MS)
  }

  #tell(table: AnnouncedTable) {
    for (const listener of this.#listeners) listener(table)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#reconnect)
    clearInterval(this.#heartbeat)
    const client = this.#client
    this.#client = null
    await client?.end()
  }
}
