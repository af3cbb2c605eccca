import type { Socket } from 'node:net'
import { hostname } from 'node:os'
import { statement, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import type { OutboundClient } from '@haven/outbound'
import type { ForwardedEntry } from './write-audit.ts'

const CONNECT_MS = 3_000
const WRITE_MS = 10_000
const BATCH = 200
const CLAIM_SECONDS = 60
/** RFC 5424: facility "log audit", severity informational. */
const PRIORITY = 13 * 8 + 6

type Endpoint = { host: string; port: number }

/** `host:port`, `[::1]:port`. @throws badRequest */
function parseEndpoint(endpoint: string): Endpoint {
  const [, bracketed, plain, port = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]@]+)):(\d{1,5})$/.exec(endpoint) ?? []
  const host = bracketed ?? plain
  if (host === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw problems.badRequest({ message: 'audit_log_forward_endpoint must be the host:port of a syslog server' })
  }
  return { host, port: Number(port) }
}

/**
 * Whether a syslog server takes connections there, over TCP.
 * @throws badRequest when the text is no endpoint, its address may not be reached, or nobody answers within three seconds.
 */
export async function checkForwardEndpoint(outbound: OutboundClient, endpoint: string): Promise<void> {
  const at = parseEndpoint(endpoint)
  try {
    const socket = await dial(outbound, at)
    socket.destroy()
  } catch (cause) {
    const why = problems.outboundRefused.is(cause) ? 'is an address that may not be reached' : 'cannot be reached'
    const message = `the syslog server ${endpoint} of audit_log_forward_endpoint ${why}`
    throw problems.badRequest({ message }, { cause })
  }
}

const dial = (outbound: OutboundClient, { host, port }: Endpoint): Promise<Socket> =>
  outbound.dial({ host, port, protocolPorts: [514], signal: AbortSignal.timeout(CONNECT_MS) })

/**
 * A line as an RFC 5424 message with the tag `audit`, its text in the form of Harbor's. What a person may have typed is quoted, so that
 * no line can be forged by a name with a line break in it.
 */
export function auditMessage(entry: ForwardedEntry, host: string = hostname()): string {
  const said = `action:${entry.operation}, resource:${entry.resource}, operation_description:${entry.description}`
  const name = host.replaceAll(/[^!-~]/g, '').slice(0, 255) || '-'
  const text = [
    ['time', entry.at],
    ['level', 'info'],
    ['msg', said],
    ['operator', entry.operator],
    ['resourceType', entry.resourceType],
    ['success', String(entry.success)],
    ['address', entry.address],
    ['request', entry.requestId],
  ]
    .filter(([, value]) => value !== '')
    .map(([key, value = '']) => `${key}=${/^[\w.:-]+$/.test(value) ? value : quoted(value)}`)
    .join(' ')
  return `<${PRIORITY}>1 ${entry.at} ${name} audit - - - ${text}`
}

/** JSON's escapes, and those of the controls that it lets through. */
const quoted = (text: string) =>
  JSON.stringify(text.toWellFormed()).replaceAll(
    /[\u007f-\u009f\u2028\u2029]/g,
    (char) => String.raw`\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )

const claim = statement<{ id: string; entry: ForwardedEntry }>(
  'audit forward claim',
  `update events.audit_forwards f set claimed_until = now() + $2 * interval '1 second'
     from (select id from events.audit_forwards where claimed_until is null or claimed_until < now()
            order by id limit $1 for update skip locked) c
    where f.id = c.id returning f.id, f.entry`,
)
const sent = statement('audit forward sent', 'delete from events.audit_forwards where id = any($1::bigint[])')
const giveBack = statement(
  'audit forward give back',
  'update events.audit_forwards set claimed_until = null where id = any($1::bigint[])',
)
const forgetUnsent = statement<{ id: string }>(
  'audit forward forget',
  `delete from events.audit_forwards where created_at < now() - $1 * interval '1 hour' returning id`,
)

export type ForwarderOptions = {
  db: Database
  outbound: OutboundClient
  /** `host:port` of the receiver as it is set now; empty: none. */
  endpoint: () => Promise<string>
  onFailure: (failure: Error) => void
  /** How often it is looked for lines. Default 1000. */
  intervalMs?: number
}

/**
 * Sends the audit log to a syslog server over TCP (RFC 6587, octet counting). Lines wait in the database while it is away. Any number
 * may run; a line whose sender died is sent again after a minute. Syslog acknowledges nothing: what the network had taken when the
 * receiver fell is gone.
 */
export class AuditForwarder implements AsyncDisposable {
  readonly #options: Required<ForwarderOptions>
  #connection: { endpoint: string; socket: Socket } | null = null
  #timer: NodeJS.Timeout | undefined
  #running: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(options: ForwarderOptions) {
    this.#options = { intervalMs: 1000, ...options }
  }

  start(): void {
    this.#running = this.#round()
  }

  async #round(): Promise<void> {
    try {
      await this.drain()
    } catch (cause) {
      this.#options.onFailure(new Error('forwarding the audit log', { cause }))
    }
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      this.#running = this.#round()
    }, this.#options.intervalMs)
  }

  /** Sends what waits now. Returns how many lines that were. */
  async drain(): Promise<number> {
    const { db } = this.#options
    for (let total = 0; ;) {
      const endpoint = await this.#options.endpoint()
      if (endpoint === '' || this.#closed) return total
      const lines = await db.writes.rows(claim, [BATCH, CLAIM_SECONDS])
      if (lines.length === 0) return total
      lines.sort((a, b) => (BigInt(a.id) < BigInt(b.id) ? -1 : 1))
      const ids = lines.map(({ id }) => id)
      try {
        await this.#send(endpoint, lines.map(({ entry }) => octetCounted(auditMessage(entry))).join(''))
      } catch (cause) {
        this.#hangUp()
        await db.writes.rows(giveBack, [ids])
        throw cause
      }
      await db.writes.rows(sent, [ids])
      total += lines.length
    }
  }

  async #send(endpoint: string, text: string): Promise<void> {
    if (this.#connection?.endpoint !== endpoint) this.#hangUp()
    const { socket } = (this.#connection ??= {
      endpoint,
      socket: this.#attend(await dial(this.#options.outbound, parseEndpoint(endpoint))),
    })
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => socket.destroy(new Error(`not taken within ${WRITE_MS} ms`)), WRITE_MS)
      socket.write(text, (error) => {
        clearTimeout(timer)
        if (error) reject(error)
        else resolve()
      })
    })
  }

  /** A receiver sends nothing; reading is how its end is noticed, and the next lines then get a new connection. */
  #attend(socket: Socket): Socket {
    const gone = () => {
      if (this.#connection?.socket === socket) this.#connection = null
      socket.destroy()
    }
    socket.on('error', gone).on('end', gone).on('close', gone).resume()
    socket.setKeepAlive(true, 30_000)
    return socket
  }

  #hangUp(): void {
    this.#connection?.socket.destroy()
    this.#connection = null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
    this.#hangUp()
  }
}

const octetCounted = (message: string) => `${Buffer.byteLength(message)} ${message}`

/** Deletes lines that no receiver took for `hours`. Returns how many. */
export async function forgetUnsentAudit(db: Database, hours: number): Promise<number> {
  return (await db.writes.rows(forgetUnsent, [hours])).length
}
