import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { harborEnvelope, ociEnvelope, Problem, problems } from '@haven/errors'
import {
  handOverRequest,
  saneRequestId,
  sendProblem,
  type Logger,
  type Metrics,
  type RequestHandler,
  type Service,
  type ShortAnswerer,
} from '@haven/runtime'
import { apiVersion } from '@haven/oci'
import type { BlobStorage } from '@haven/storage'
import { admit } from './admission.ts'
import { Forwarder, type Vouched } from './forward.ts'
import { securityHeadersOf, stripInbound } from './headers.ts'
import { PortalFiles } from './portal-files.ts'
import { destinationOf, type Destination } from './routes.ts'
import { overTheHop, proxyShortcut, withinProcess } from './shortcut.ts'
import { tellAnswer } from './tell-answer.ts'
import { TrustedProxies } from './trusted-proxies.ts'

const targetNames = ['registry', 'token', 'core'] as const
type TargetName = (typeof targetNames)[number]

/** As long as Harbor's nginx waits. */
const DEFAULT_ANSWER_WITHIN_MS = 900_000

/** A service in this process, or the base URL of one in another. */
export type Target = RequestHandler | string

export interface ProxyDeps {
  readonly targets: Readonly<Record<TargetName, Target>>
  /** Of a registry in this process: what it answers without an object of `node:http`. */
  readonly shortAnswer?: ShortAnswerer | undefined
  /** The store whose blobs a service in another process may leave to the proxy; null when the proxy cannot read it. */
  readonly storage: BlobStorage | null
  /** What the proxy shows to services in other processes. */
  readonly secret: string
  readonly log: Logger
  readonly metrics: Metrics
  /** Folder of the built portal. */
  readonly portalFolder: string
  /** Balancers in front of us. Default: nobody. */
  readonly trustedProxies?: TrustedProxies
  /** Without a byte from a service for this long, a request is given up. */
  readonly answerWithinMs?: number
}

/** The only door. Its handler may be given to `listen` directly; `openDoor` adds TLS and the limits of a door. */
export function createProxy(deps: ProxyDeps): Service {
  const { targets, log, shortAnswer, trustedProxies: trusted = nobody } = deps
  const portal = new PortalFiles(deps.portalFolder)
  const forwarders = new Map<TargetName, Forwarder>()
  for (const name of targetNames) {
    const url = targets[name]
    const { secret, storage, answerWithinMs = DEFAULT_ANSWER_WITHIN_MS } = deps
    if (typeof url === 'string') forwarders.set(name, new Forwarder({ name, url, secret, storage, answerWithinMs }))
  }
  const bring = (name: TargetName, req: IncomingMessage, res: ServerResponse, vouched: Vouched) => {
    const target = targets[name]
    if (typeof target === 'string') return forwarders.get(name)!.forward(req, res, vouched)
    handOverRequest(req, vouched, securityHeadersOf(vouched.scheme))
    target(req, res)
  }
  const tell = tellAnswer(deps)

  const handler: RequestHandler = (req, res) => {
    const startedAt = performance.now()
    const sentBefore = req.socket.bytesWritten
    const vouched = vouchFor(req, log, trusted)
    const { method = '', url = '' } = req
    const agent = req.headers['user-agent']
    let to: Destination | 'refused' = 'refused'
    res.on('close', () =>
      tell(startedAt, {
        request: vouched.requestId,
        client: vouched.clientAddress,
        method,
        url,
        status: res.writableFinished ? res.statusCode : 499,
        bytes: req.socket.bytesWritten - sentBefore,
        to,
        agent,
      }),
    )

    const asked = admit(req)
    if (asked instanceof Problem) {
      setSecurityHeaders(res, vouched)
      const oci = (req.url ?? '').startsWith('/v2')
      if (oci) res.setHeader(...apiVersion)
      return sendProblem(req, res, withAllow(asked), oci ? ociEnvelope : harborEnvelope)
    }
    stripInbound(req)
    to = destinationOf(asked.path)
    // A service in this process writes them with its own.
    if (to === 'registry' && typeof targets.registry === 'function') return bring(to, req, res, vouched)
    setSecurityHeaders(res, vouched)
    switch (to) {
      case 'registry':
        return bring(to, req, res, vouched)
      case 'token':
      case 'core':
        // Answers about accounts must not stay in a cache on the way (threats.md A57); a handler may say otherwise.
        res.setHeader('Cache-Control', 'no-store')
        return bring(to, req, res, vouched)
      case 'registry-root':
        res.setHeader(...apiVersion)
        res.writeHead(301, { Location: '/v2/', 'Content-Length': 0 }).end()
        return
      case 'absent':
        return sendProblem(req, res, problems.pathNotFound({ path: asked.path }), harborEnvelope)
      case 'portal':
        void portal.answer(req, res, asked.path).catch((err: unknown) => failPortal(req, res, vouched, err))
    }
  }

  const far = forwarders.get('registry')
  const shortWay = shortAnswer ? withinProcess(shortAnswer) : far ? overTheHop(far) : null
  return {
    name: 'proxy',
    handler,
    ...(shortWay && { shortcut: proxyShortcut(shortWay, { tell, trusted }) }),
    checks: {},
    async [Symbol.asyncDispose]() {
      for (const forwarder of forwarders.values()) forwarder[Symbol.dispose]()
    },
  }
}

function failPortal(req: IncomingMessage, res: ServerResponse, { log, requestId }: Vouched, err: unknown): void {
  if (res.destroyed) return
  log.error({ err }, 'a portal file could not be sent')
  if (res.headersSent) res.destroy()
  else sendProblem(req, res, problems.internal({ requestId }), harborEnvelope)
}

const nobody = new TrustedProxies([])

function vouchFor(req: IncomingMessage, log: Logger, trusted: TrustedProxies): Vouched {
  const { clientAddress, scheme } = trusted.clientOf(req.socket, (name) => req.headers[name])
  return {
    requestId: saneRequestId(req.headers['x-request-id']) ?? randomUUID(),
    clientAddress,
    scheme,
    host: req.headers.host ?? '',
    log,
  }
}

function setSecurityHeaders(res: ServerResponse, { scheme, requestId }: Vouched): void {
  const headers = securityHeadersOf(scheme)
  for (let i = 0; i < headers.length; i += 2) res.setHeader(headers[i]!, headers[i + 1]!)
  res.setHeader('X-Request-Id', requestId)
}

function withAllow(problem: Problem): Problem {
  const { allowed } = problem.facts
  return problems.methodNotAllowed.is(problem) && Array.isArray(allowed)
    ? new Problem(problem.kind, [problem.entries[0]!], { headers: { Allow: allowed.join(', ') } })
    : problem
}
