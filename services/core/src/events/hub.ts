import type { ServerResponse } from 'node:http'
import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import { EventTail } from '@haven/events'
import type { Authorities, Authority, Principal, Sessions } from '@haven/identity'
import type { ProjectDirectory, ProjectNode } from '@haven/projects'
import { streamed, streamedTypes, type Streamed } from './streamed.ts'

export type EventHubDeps = {
  db: Database
  authorities: Pick<Authorities, 'of'>
  sessions: Pick<Sessions, 'load'>
  directory: Pick<ProjectDirectory, 'byId'>
  onFailure: (failure: Error) => void
}

/** Times and limits; tests have shorter ones. */
export type EventHubOptions = {
  /** How often the outbox is looked at while somebody listens. */
  lookEveryMs: number
  heartbeatMs: number
  /** How often it is asked whether a listener still is who he was. */
  proveEveryMs: number
  /** After this long a client has to come again, and to prove itself. */
  longestMs: number
  perPrincipal: number
  perAddress: number
  inAll: number
}

const defaults: EventHubOptions = {
  lookEveryMs: 500,
  heartbeatMs: 15_000,
  proveEveryMs: 3_000,
  longestMs: 15 * 60_000,
  perPrincipal: 20,
  perAddress: 200,
  inAll: 4_000,
}

type Known = Extract<Principal, { kind: 'user' | 'robot' }>

export type NewListener = {
  principal: Known
  /** Of the browser's session; null for a program. */
  sessionId: string | null
  address: string
  /** Null: everything. */
  topics: ReadonlySet<string> | null
  /** Where it left off; null for one that begins. */
  lastEventId: bigint | null
}

type Listener = NewListener & {
  readonly res: ServerResponse
  /** When it began; who has another one now is not who he was. */
  readonly passwordId: number | null
  readonly endsAt: number
  /** What came while it is still told what it missed; null: it is told at once. */
  held: Streamed[] | null
  /** Something could not be told: it did not read, or its rights could not be read. */
  missed: boolean
}

/** Of one listener; who lets more lie is not waited for. */
const MAX_WAITING_BYTES = 64 * 1024
/** Events that are kept for those who come back. */
const KEPT = 2_000
const RETRY_AFTER_SECONDS = 60

/**
 * Streams of live events (Server-Sent Events). One reader of the outbox for all listeners of a process, one parsing for each event, one verdict for each
 * principal and event; nothing is asked while nobody listens.
 */
export class EventHub implements AsyncDisposable {
  readonly #deps: EventHubDeps
  readonly #options: EventHubOptions
  readonly #tail: EventTail
  readonly #listeners = new Set<Listener>()
  /** Events after `#keptFrom`, in order. */
  #kept: Streamed[] = []
  #keptFrom = 0n
  /** Up to here everybody was told. */
  #told = 0n
  #opening: Promise<void> | null = null
  #reachingBack: Promise<void> = Promise.resolve()
  #timers: NodeJS.Timeout[] = []
  #looking: Promise<void> | null = null
  #closed = false

  constructor(deps: EventHubDeps, options: Partial<EventHubOptions> = {}) {
    this.#deps = deps
    this.#options = { ...defaults, ...options }
    this.#tail = new EventTail(deps.db, streamedTypes)
  }

  get listeners(): number {
    return this.#listeners.size
  }

  /**
   * Answers with a stream until the client leaves, its credentials end, or its time is over.
   * @throws tooManyRequests, serviceUnavailable for one stream too many
   */
  async listen(res: ServerResponse, given: NewListener): Promise<void> {
    const { passwordId } = await this.#deps.authorities.of(given.principal)
    this.#requireRoom(given)
    const endsAt = performance.now() + this.#options.longestMs * (0.8 + Math.random() / 5)
    // Nothing is waited for between the count and this: many at once must not pass the limit together.
    const listener: Listener = { ...given, res, passwordId, endsAt, held: [], missed: false }
    this.#listeners.add(listener)
    res.once('close', () => this.#leave(listener))
    try {
      await (this.#opening ??= this.#open())
    } catch (error) {
      this.#leave(listener)
      throw error
    }
    if (res.destroyed || this.#closed) return this.#end(listener)
    res.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      // Read by a proxy in front of ours; one that gathers would hold events back.
      'X-Accel-Buffering': 'no',
    })
    // Not all at the same moment when a replica goes down.
    res.write(`retry: ${Math.round(2_000 + Math.random() * 3_000)}\n\n`)
    await this.#catchUp(listener)
  }

  #requireRoom({ principal, address }: NewListener): void {
    const { perPrincipal, perAddress, inAll } = this.#options
    if (this.#closed || this.#listeners.size >= inAll) {
      throw problems.serviceUnavailable({ message: 'no more event streams', retryAfterSeconds: RETRY_AFTER_SECONDS })
    }
    let same = 0
    let near = 0
    for (const listener of this.#listeners) {
      if (keyOf(listener.principal) === keyOf(principal)) same++
      if (listener.address === address) near++
    }
    if (same < perPrincipal && near < perAddress) return
    const message = 'too many event streams are open'
    throw problems.tooManyRequests({ retryAfterSeconds: RETRY_AFTER_SECONDS, message })
  }

  async #open(): Promise<void> {
    try {
      await this.#looking
      const { from, events } = await this.#tail.open()
      this.#kept = []
      this.#keptFrom = from
      this.#keep(events.flatMap(streamed))
    } catch (error) {
      this.#opening = null
      throw error
    }
    this.#told = this.#tail.position
    const { lookEveryMs, heartbeatMs, proveEveryMs } = this.#options
    this.#timers = [
      setInterval(() => void this.#look(), lookEveryMs),
      setInterval(() => this.#beat(), heartbeatMs),
      setInterval(() => void this.#prove(), proveEveryMs),
    ]
    this.#restIfAlone()
  }

  #leave(listener: Listener): void {
    this.#listeners.delete(listener)
    if (this.#timers.length > 0) this.#restIfAlone()
  }

  /** Nothing is read for nobody. */
  #restIfAlone(): void {
    if (this.#listeners.size > 0) return
    for (const timer of this.#timers) clearInterval(timer)
    this.#timers = []
    this.#opening = null
    this.#kept = []
  }

  #end(listener: Listener): void {
    this.#leave(listener)
    listener.res.end()
  }

  /** Tells everybody what is new. Never rejects. */
  #look(): Promise<void> {
    return (this.#looking ??= this.#deliverNew()
      .catch((cause: unknown) => this.#deps.onFailure(new Error('reading events for listeners', { cause })))
      .finally(() => {
        this.#looking = null
      }))
  }

  async #deliverNew(): Promise<void> {
    while (this.#listeners.size > 0 && !this.#closed) {
      const events = (await this.#tail.next()).flatMap(streamed)
      const { position } = this.#tail
      if (events.length > 0) {
        this.#keep(events)
        const [held, live] = [
          [...this.#listeners].filter((one) => one.held),
          [...this.#listeners].filter((one) => !one.held),
        ]
        for (const listener of held) listener.held!.push(...events)
        await this.#deliver(events, live, position)
      }
      this.#told = position
      if (events.length === 0) return
    }
  }

  #keep(events: readonly Streamed[]): void {
    this.#kept.push(...events)
    // Late ones have lower numbers.
    this.#kept.sort((a, b) => Number(a.id - b.id))
    const over = this.#kept.length - KEPT
    if (over <= 0) return
    this.#keptFrom = this.#kept[over - 1]!.id
    this.#kept = this.#kept.slice(over)
  }

  /** What it missed, from memory; what lies further back is read once for all who ask at that time. */
  async #catchUp(listener: Listener): Promise<void> {
    const { lastEventId: from } = listener
    if (from !== null) {
      // It may come from another replica, which has seen more.
      if (from > this.#tail.last) await this.#look()
      await (this.#reachingBack = this.#reachingBack.then(() => this.#reachBack(from)))
      if (from >= this.#keptFrom && from <= this.#tail.last) {
        const missed = this.#kept.filter(({ id }) => id > from)
        listener.held = []
        await this.#deliver(missed, [listener], null)
      } else this.#tell(listener, reload)
    }
    while (listener.held!.length > 0) {
      const came = listener.held!
      listener.held = []
      await this.#deliver(came, [listener], null)
    }
    listener.held = null
    // Last: who is cut off in between asks from the old one again.
    this.#tell(listener, `id: ${this.#told}\n\n`)
  }

  /** Never rejects: who gets nothing is told to load everything. */
  async #reachBack(from: bigint): Promise<void> {
    const until = this.#keptFrom
    if (from >= until || this.#kept.length >= KEPT) return
    try {
      const older = await this.#tail.between(from, until, KEPT - this.#kept.length)
      if (older === null || this.#keptFrom !== until) return
      this.#kept = [...older.flatMap(streamed), ...this.#kept]
      this.#keptFrom = from
    } catch (cause) {
      this.#deps.onFailure(new Error('reading events that a listener missed', { cause }))
    }
  }

  /** @param position to be remembered by those who got all of it; null: not yet. */
  async #deliver(events: readonly Streamed[], to: readonly Listener[], position: bigint | null): Promise<void> {
    const projects = await this.#projectsOf(events)
    const byPrincipal = Map.groupBy(to, ({ principal }) => keyOf(principal))
    for (const listeners of byPrincipal.values()) {
      try {
        const authority = await this.#deps.authorities.of(listeners[0]!.principal)
        if (!authority.active) continue // it ends when it is asked who it is
        const allowed = events.filter(({ audience, projectId }) =>
          audience(authority, projectId === null ? null : projects(projectId)),
        )
        for (const listener of listeners) this.#tellAll(listener, allowed, position)
      } catch (cause) {
        for (const listener of listeners) listener.missed = true
        this.#deps.onFailure(new Error('reading what a listener may see', { cause }))
      }
    }
  }

  /** Throws what it could not read when it is asked for it. */
  async #projectsOf(events: readonly Streamed[]): Promise<(id: number) => ProjectNode | null> {
    const ids = [...new Set(events.flatMap(({ projectId }) => projectId ?? []))]
    const found = await Promise.allSettled(ids.map((id) => this.#deps.directory.byId(id)))
    const byId = new Map(ids.map((id, i) => [id, found[i]!]))
    return (id) => {
      const project = byId.get(id)!
      if (project.status === 'rejected') throw project.reason
      return project.value
    }
  }

  #tellAll(listener: Listener, events: readonly Streamed[], position: bigint | null): void {
    const wanted = events.filter(({ topic }) => listener.topics?.has(topic) ?? true)
    if (wanted.length === 0) return
    const texts = wanted.map(({ text }) => `${text}\n`)
    // With the last one: a part of them must not look like all.
    if (position !== null) texts.push(`id: ${position}\n${texts.pop()}`)
    this.#tell(listener, texts.join(''))
  }

  #tell(listener: Listener, text: string): void {
    const { res } = listener
    if (res.writableEnded || res.destroyed) return
    if (listener.missed && res.writableLength === 0) {
      listener.missed = false
      res.write(reload)
    }
    if (res.writableLength > MAX_WAITING_BYTES) listener.missed = true
    if (!listener.missed) res.write(text)
  }

  #beat(): void {
    const text = `: \nid: ${this.#told}\n\n`
    for (const listener of this.#listeners) if (!listener.held) this.#tell(listener, text)
  }

  /** Ends the streams of those who signed out, were disabled, changed their password, or have listened long enough. */
  async #prove(): Promise<void> {
    const now = performance.now()
    await Promise.all(
      [...this.#listeners].map(async (listener) => {
        try {
          if (now > listener.endsAt || !(await this.#isProved(listener))) this.#end(listener)
        } catch {
          // Redis or Postgres is away: nobody can sign out meanwhile either, and the next round asks again.
        }
      }),
    )
  }

  async #isProved({ principal, sessionId, passwordId }: Listener): Promise<boolean> {
    const { authorities, sessions } = this.#deps
    if (sessionId !== null) return (await sessions.load(sessionId, { renew: false })) !== null
    const authority: Authority = await authorities.of(principal)
    return authority.active && authority.passwordId === passwordId
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await Promise.allSettled([this.#opening, this.#looking, this.#reachingBack])
    for (const listener of [...this.#listeners]) this.#end(listener)
  }
}

const keyOf = ({ kind, id }: Known): string => `${kind}:${id}`

/** Something was missed: whoever shows a state loads it again. */
const reload = 'event: reload\ndata: {}\n\n'
