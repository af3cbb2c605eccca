import type { IncomingMessage, ServerResponse } from 'node:http'
import { once } from 'node:events'
import { harborEnvelope, problems } from '@haven/errors'
import {
  finish,
  readBody,
  sameSecret,
  serviceApp,
  type Logger,
  type Metrics,
  type Service,
  type Trust,
} from '@haven/runtime'
import type { NextFunction, Request } from 'express'
import type { ConfigOf } from '@haven/config'
import type { logCollectorConfig } from './config.ts'
import { Forwarder, type ForwarderOptions } from './forwarder.ts'
import { isServiceName, keep, levels, readLine, type KeptLine, type Level } from './line.ts'
import { LogFiles } from './log-files.ts'
import { searchLogs, type SearchQuery } from './search.ts'
import { receiveSyslog, type SyslogReceiver } from './syslog.ts'

export interface LogCollectorDeps {
  readonly files: LogFiles
  /** What services show. */
  readonly secret: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
  readonly forwardTo?: Omit<ForwarderOptions, 'log'>
  /** Where to receive syslog; TCP and UDP. */
  readonly syslog?: { readonly host: string; readonly port: number }
}

export interface LogCollector extends Service {
  /** The port where syslog arrives; null when it does not. */
  readonly syslogPort: number | null
}

/** Opens the folder that the settings name and makes the service that keeps lines in it. */
export async function openLogCollector(
  host: Pick<LogCollectorDeps, 'log' | 'metrics' | 'trust'> & { readonly config: ConfigOf<typeof logCollectorConfig> },
): Promise<LogCollector> {
  const { config, log, metrics, trust } = host
  const { path, maxFileBytes, maxAgeMs, keep: count, maxTotalBytes, forwardUrl, forwardCa, forwardBufferBytes } = config
  return createLogCollector({
    files: await LogFiles.open(path, { maxFileBytes, maxAgeMs, keep: count, maxTotalBytes }, log),
    secret: config.logCollectorSecret,
    log,
    metrics,
    trust,
    ...(forwardUrl && { forwardTo: { url: forwardUrl, ca: forwardCa?.text, bufferBytes: forwardBufferBytes } }),
    ...(config.syslogPort !== undefined && { syslog: { host: config.syslogHost, port: config.syslogPort } }),
  })
}

const MAX_BATCH_BYTES = 4 * 1024 * 1024
const MAX_FOUND = 1000

/** Keeps the lines of all services, one file each; forwards and searches them. */
export function createLogCollector(deps: LogCollectorDeps): LogCollector {
  const { files, log, metrics, trust } = deps
  const forwarder = deps.forwardTo ? new Forwarder({ ...deps.forwardTo, log }) : null
  let syslog: SyslogReceiver | null = null

  const take = async (lines: readonly KeptLine[]) => {
    const byService = Map.groupBy(lines, (line) => line.service)
    const written = [...byService].map(([service, own]) => files.append(service, own.map(({ text }) => text).join('')))
    if (forwarder) for (const line of lines) forwarder.send(line)
    await Promise.all(written)
  }

  // A line about lines would be one more to be told of.
  const app = serviceApp({ name: 'log-collector', log, metrics, trust, tells: 'nothing', envelope: harborEnvelope })
  app.use((req: Request, _res: ServerResponse, next: NextFunction) => {
    const shown = /^Bearer (.+)$/.exec(req.headers.authorization ?? '')?.[1] ?? ''
    if (!sameSecret(shown, deps.secret)) throw problems.unauthorized({})
    next()
  })
  app.post('/v1/lines', async (req, res) => {
    const body = await readBody(req, { limitBytes: MAX_BATCH_BYTES })
    const lines = body
      .toString()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => readLine(line))
    const dropped = Number(req.headers['x-haven-dropped'] ?? 0)
    if (dropped > 0 && Number.isSafeInteger(dropped)) {
      const service = lines[0]?.service ?? 'unreadable'
      lines.unshift(keep({ service, level: 'warn', msg: `${dropped} lines before this one were dropped`, dropped }))
    }
    await take(lines)
    res.status(204).end()
  })
  app.get('/v1/search', async (req, res) => {
    const query = readQuery(req)
    res.setHeader('Content-Type', 'application/x-ndjson; charset=utf-8')
    res.setHeader('Cache-Control', 'no-store')
    await sendFound(files, query, req, res)
  })
  app.get('/v1/services', async (_req, res) => {
    res.json(await files.services())
  })

  return {
    name: 'log-collector',
    handler: finish(app),
    checks: { files: () => files.check() },
    get syslogPort() {
      return syslog?.port ?? null
    },
    async start() {
      if (!deps.syslog) return
      const receive = (line: KeptLine) => {
        take([line]).catch((err: unknown) => log.error({ err }, 'a syslog message could not be kept'))
      }
      syslog = await receiveSyslog(deps.syslog, receive, log)
    },
    async [Symbol.asyncDispose]() {
      await syslog?.[Symbol.asyncDispose]()
      await forwarder?.[Symbol.asyncDispose]()
      await files[Symbol.asyncDispose]()
    },
  }
}

/** Lines as they are found; a search that had to stop early says so in its last line. */
async function sendFound(
  files: LogFiles,
  query: SearchQuery,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const gone = new AbortController()
  const onClose = () => gone.abort()
  res.once('close', onClose)
  try {
    const found = searchLogs(files, query, gone.signal)
    let step = await found.next()
    for (; !step.done; step = await found.next()) {
      if (!res.write(`${step.value}\n`)) await once(res, 'drain', { signal: gone.signal })
    }
    if (step.value.truncated) res.write(`${JSON.stringify({ truncated: true })}\n`)
    res.end()
  } catch (error) {
    if (!gone.signal.aborted) throw error
    req.destroy()
  } finally {
    res.off('close', onClose)
  }
}

function readQuery(req: Request): SearchQuery {
  const given = req.query as Record<string, string | string[] | undefined>
  const one = (name: string): string | undefined => {
    const value = given[name]
    if (Array.isArray(value)) throw problems.badRequest({ message: `${name} is given more than once` })
    return value === '' ? undefined : value
  }
  const time = (name: string): Date | undefined => {
    const text = one(name)
    if (text === undefined) return undefined
    const date = new Date(text)
    if (Number.isNaN(date.getTime()))
      throw problems.badRequest({ message: `${name} is not a time, such as 2026-11-25T12:00:00Z` })
    return date
  }
  const service = one('service')
  if (service !== undefined && !isServiceName(service))
    throw problems.badRequest({ message: 'service is not the name of a service' })
  const level = one('level')
  if (level !== undefined && !(levels as readonly string[]).includes(level)) {
    throw problems.badRequest({ message: `level is not one of ${levels.join(', ')}` })
  }
  const limit = one('limit') ?? '100'
  if (!/^\d{1,4}$/.test(limit) || Number(limit) < 1 || Number(limit) > MAX_FOUND) {
    throw problems.badRequest({ message: `limit is not a number from 1 to ${MAX_FOUND}` })
  }
  return {
    service,
    request: one('request'),
    level: level as Level | undefined,
    text: one('text'),
    from: time('from'),
    to: time('to'),
    limit: Number(limit),
  }
}
