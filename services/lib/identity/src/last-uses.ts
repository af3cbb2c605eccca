import { statement, type Database } from '@haven/db'

const flushEveryMs = 10_000
const maxAgentLength = 255

type Use = { readonly at: Date; readonly address: string; readonly agent: string | null }

/**
 * When, from where and by which program each credential was used last. Kept in memory and written together every ten seconds, so that
 * programs that send Basic with every request cost no write each; a process that is killed forgets what it had not written.
 */
export class LastUses implements Disposable, AsyncDisposable {
  readonly #db: Database
  readonly #timer: NodeJS.Timeout
  #pending = new Map<number, Use>()

  constructor(db: Database) {
    this.#db = db
    // Postgres may be away: the uses are kept for the next time, and its absence shows in the readiness checks.
    this.#timer = setInterval(() => void this.flush().catch(() => undefined), flushEveryMs).unref()
  }

  note(credentialId: number, { address, agent }: { address: string; agent?: string | undefined }): void {
    this.#pending.set(credentialId, { at: new Date(), address, agent: agent?.slice(0, maxAgentLength) ?? null })
  }

  /** Writes what was noted. */
  async flush(): Promise<void> {
    const uses = this.#pending
    if (uses.size === 0) return
    this.#pending = new Map()
    // Always in the same order, so that two processes wait for each other rather than for ever.
    const entries = [...uses].sort(([a], [b]) => a - b)
    try {
      await this.#db.writes.rows(noteUses, [
        entries.map(([id]) => id),
        entries.map(([, use]) => use.at),
        entries.map(([, use]) => use.address),
        entries.map(([, use]) => use.agent),
      ])
    } catch (error) {
      for (const [id, use] of uses) if (!this.#pending.has(id)) this.#pending.set(id, use)
      throw error
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]()
    await this.flush()
  }
}

const noteUses = statement(
  'identity: note the use of credentials',
  `update identity.credentials c set last_used_at = u.at, last_used_address = u.address, last_used_agent = u.agent
     from unnest($1::int[], $2::timestamptz[], $3::text[], $4::text[]) as u(id, at, address, agent)
    where c.id = u.id and (c.last_used_at is null or c.last_used_at < u.at)`,
)
