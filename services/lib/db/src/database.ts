import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { PrismaClient } from './gen/prisma/client.ts'
import { Announcements } from './announcements.ts'
import { KeptLists } from './kept-lists.ts'
import { joinWrites, PIPELINED } from './pipeline.ts'
import { PipelinedReads, saidNo } from './pipelined-reads.ts'
import { SharedReads } from './shared-reads.ts'
import { SharedTransactions } from './shared-transactions.ts'
import { SilenceWatch } from './silence.ts'
import { Queries, type Run, type Sql } from './sql.ts'
import { statement } from './statement.ts'
import { Transaction, type Tx } from './transaction.ts'
import { tracedPrisma, tracedReads, tracedRun } from './traced.ts'

/** Prisma's client, or a transaction of it. */
export type Db = Omit<PrismaClient, '$connect' | '$disconnect' | '$on' | '$extends' | '$transaction'>

export type DatabaseOptions = {
  url: string
  applicationName: string
  /** Connections for writes and transactions; Prisma has as many of its own. Default 8. */
  poolSize?: number
}

const STATEMENT_TIMEOUT_MS = 10_000
const LOCK_TIMEOUT_MS = 3_000
const IDLE_IN_TRANSACTION_MS = 15_000
const CONNECT_TIMEOUT_MS = 5_000
/** A serialization failure or deadlock is repeated this often before it is an error. */
const MAX_ATTEMPTS = 5

const writeCanary = statement<{ canary: string }>(
  'instance: first key canary',
  `insert into system.instance (id, key_canary) values (1, $1)
   on conflict (id) do update set key_canary = coalesce(system.instance.key_canary, excluded.key_canary)
   returning key_canary as canary`,
)
const readCanary = statement<{ canary: string | null }>(
  'instance: key canary',
  'select key_canary as canary from system.instance where id = 1',
)

export class Database implements AsyncDisposable {
  /** No `#`: an object made of this one (`Object.create`), with other transactions, has it, too. */
  private readonly lazily: { readonly open: () => PrismaClient; prisma: PrismaClient | null }
  readonly announcements: Announcements
  /**
   * Autocommit reads of the hot path: one pipelined connection, replaced when it breaks (`PipelinedReads`). Who asks the same at once
   * shares one answer (`SharedReads`): rows are not to be changed.
   */
  readonly reads: Sql
  /** Autocommit single statements that write. */
  readonly writes: Sql
  /** Short changes that many make at once: pushes. */
  readonly shared: SharedTransactions
  /** For statements that say `UNSYNCED`: what must be on the disk is not among those they share with. */
  readonly unsynced: Sql
  /** What lists held, until it changes. */
  readonly lists: KeptLists
  readonly #pool: pg.Pool
  readonly #pipelined: PipelinedReads
  readonly #watch: SilenceWatch

  constructor(options: DatabaseOptions) {
    const config = connectionConfig(options)
    const poolSize = options.poolSize ?? 8
    this.#pool = new pg.Pool({ ...config, ...PIPELINED, max: poolSize, idleTimeoutMillis: 60_000 })
    this.#pool.on('error', () => undefined) // an idle connection broke; the pool drops it and the next query opens another
    this.#watch = new SilenceWatch(config, STATEMENT_TIMEOUT_MS)
    const pooled = (query: pg.QueryConfig) => this.#pooled(query)
    this.#pipelined = new PipelinedReads(config, this.#watch, pooled)
    const open = () =>
      tracedPrisma(
        new PrismaClient({
          adapter: new PrismaPg({ ...config, max: poolSize }),
          transactionOptions: { maxWait: 5_000, timeout: 15_000 },
        }),
      )
    this.lazily = { open, prisma: null }
    this.announcements = new Announcements(config, this.#watch)
    this.reads = tracedReads(new SharedReads(new Queries(this.#pipelined.run)))
    this.writes = new Queries(pooled)
    const sharing = () =>
      new SharedTransactions(
        (work) => this.transaction(work),
        (work) => this.#once(work, true),
        this.writes,
      )
    this.shared = sharing()
    this.unsynced = sharing()
    this.lists = new KeptLists(this.reads)
  }

  /** Opened by the first who asks, and not to start, sign in, push or pull: with its compiler it takes 30 MiB and half a second of CPU. */
  get prisma(): PrismaClient {
    return (this.lazily.prisma ??= this.lazily.open())
  }

  /**
   * Runs `work` in one transaction (read committed). Serialization failures and deadlocks are repeated with jitter, so `work`
   * must have no effect outside the database.
   */
  async transaction<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(work)
      } catch (error) {
        if (attempt >= MAX_ATTEMPTS || !isRetryable(error)) throw error
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 20 * 2 ** attempt))
      }
    }
  }

  #once<T>(work: (tx: Tx) => Promise<T>, shared = false): Promise<T> {
    return this.#lent(async (ask, broke) => {
      const tx = new Transaction(ask, shared)
      try {
        const result = await work(tx)
        await tx.commit()
        return result
      } catch (error) {
        await tx.rollback().catch(broke)
        throw error
      }
    })
  }

  #pooled(query: pg.QueryConfig): Promise<pg.QueryResult> {
    return this.#lent((ask) => ask(query))
  }

  /** Lends a connection of the pool, and gives it back unless it broke. */
  async #lent<T>(use: (ask: Run, broke: (error: Error) => void) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect()
    let broken: Error | undefined
    const broke = (error: Error) => {
      broken = error
    }
    // The pool listens only to idle connections: one that broke between two statements of ours would end the process.
    client.on('error', broke)
    try {
      return await use(
        tracedRun(async (query) => {
          joinWrites(client)
          try {
            return await this.#watch.ask(client, () => client.query(query))
          } catch (error) {
            // Heard before the socket says that it ended: the next would be given a connection that is dead.
            if (!saidNo(error)) broke(error as Error)
            throw error
          }
        }),
        broke,
      )
    } finally {
      client.off('error', broke)
      client.release(broken)
    }
  }

  /** The sealed value that proves the encryption key: the one of this installation, written by the first who asks. */
  async keyCanary(make: () => string): Promise<string> {
    return (await this.writes.one(writeCanary, [make()]))!.canary
  }

  /** As `keyCanary`, of an installation that has one; null for one that was never started. */
  async readKeyCanary(): Promise<string | null> {
    return (await this.reads.one(readCanary, []))?.canary ?? null
  }

  /** Connections of the pool for writes: all, those that nobody uses, and how many wait for one. */
  get pool(): { readonly size: number; readonly idle: number; readonly waiting: number } {
    const { totalCount: size, idleCount: idle, waitingCount: waiting } = this.#pool
    return { size, idle, waiting }
  }

  /** @throws when Postgres does not answer within the connect timeout. */
  async check(): Promise<void> {
    await this.#pooled({ text: 'select 1' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([
      this.announcements[Symbol.asyncDispose](),
      this.#pipelined[Symbol.asyncDispose](),
      this.#pool.end(),
      this.lazily.prisma?.$disconnect(),
    ])
  }
}

export const openDatabase = (options: DatabaseOptions): Database => new Database(options)

/** Postgres says "unique_violation": somebody else made it first. */
export const isUniqueViolation = (error: unknown): boolean => codeOf(error) === '23505'

const isRetryable = (error: unknown) => codeOf(error) === '40001' || codeOf(error) === '40P01'

/** The SQLSTATE or network code, whether it comes from pg or through Prisma's adapter. */
function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  const e = error as { code?: unknown; meta?: { driverAdapterError?: { cause?: { originalCode?: string } } } }
  if (e.code === 'P2002') return '23505'
  if (e.code === 'P2034') return '40001'
  return e.meta?.driverAdapterError?.cause?.originalCode ?? (typeof e.code === 'string' ? e.code : undefined)
}

function connectionConfig(options: DatabaseOptions): pg.ClientConfig {
  return {
    connectionString: options.url,
    application_name: options.applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    options: [
      `-c statement_timeout=${STATEMENT_TIMEOUT_MS}`,
      `-c lock_timeout=${LOCK_TIMEOUT_MS}`,
      `-c idle_in_transaction_session_timeout=${IDLE_IN_TRANSACTION_MS}`,
      '-c timezone=UTC',
      // What a page might read at worst looks dear enough to be compiled, which takes many times as long as the page.
      '-c jit=off',
    ].join(' '),
  }
}
