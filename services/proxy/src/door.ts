import type { IncomingMessage, ServerResponse } from 'node:http'
import { isIPv6 } from 'node:net'
import { harborEnvelope, Problem } from '@haven/errors'
import {
  listen,
  sendProblem,
  type Limits,
  type Listening,
  type Logger,
  type RequestHandler,
  type Shortcut,
} from '@haven/runtime'
import { admit } from './admission.ts'
import { readCertificate, watchCertificate, type CertificateFiles } from './certificate.ts'

export interface DoorOptions {
  readonly host: string
  /** The plain port; null with TLS only. */
  readonly port: number | null
  /** The settings that name the ports, for the message about one that is taken. */
  readonly portSettings?: { readonly plain: string; readonly tls: string }
  /** Several processes share the door. */
  readonly reusePort?: boolean
  /** With it, this port serves and the plain one, if there is one, only redirects. */
  readonly tls?: { readonly port: number; readonly certificate: CertificateSource; readonly lookEveryMs?: number }
  /** Where clients find us from outside; redirects and certificates name its host. */
  readonly externalUrl?: string | undefined
  /** Those that are not given are the defaults of `listen`. */
  readonly limits?: Partial<Limits>
  /** For the port that serves. */
  readonly shortcut?: Shortcut | undefined
  readonly log: Logger
}

/** Files of an operator, or the folder of a pair that is made here. */
export type CertificateSource = CertificateFiles | { readonly selfSignedIn: string }

export interface Door {
  readonly port: number | null
  readonly tlsPort: number | null
  readonly listening: readonly Listening[]
}

/** Opens the ports that face the world, with the limits of a door. */
export async function openDoor(handler: RequestHandler, options: DoorOptions): Promise<Door> {
  const { host, port, tls, log, shortcut, reusePort = false, limits = {} } = options
  const onError = (err: Error) => log.error({ err }, 'the door reported an error')
  const settings = options.portSettings ?? { plain: 'PROXY_PORT', tls: 'PROXY_TLS_PORT' }
  const common = { host, reusePort, limits, onError }
  if (!tls) {
    if (port === null) throw new Error('a door without TLS has a plain port')
    const plain = await listen(handler, { ...common, shortcut, port, portSetting: settings.plain })
    return { port: plain.port, tlsPort: null, listening: [plain] }
  }
  const files = await filesOf(tls.certificate, options)
  const secured = await listen(handler, {
    ...common,
    shortcut,
    port: tls.port,
    portSetting: settings.tls,
    tls: await readCertificate(files),
  })
  const watch = watchCertificate(files, (certificate) => secured.setTls(certificate), {
    log,
    ...(tls.lookEveryMs === undefined ? {} : { everyMs: tls.lookEveryMs }),
  })
  const closing: Listening = {
    port: secured.port,
    setTls: (files) => secured.setTls(files),
    get connections() {
      return secured.connections
    },
    async drain(ms) {
      watch[Symbol.dispose]()
      return secured.drain(ms)
    },
  }
  if (port === null) return { port: null, tlsPort: secured.port, listening: [closing] }
  try {
    const redirect = redirectToHttps(secured.port, options.externalUrl)
    const plain = await listen(redirect, { ...common, port, portSetting: settings.plain })
    return { port: plain.port, tlsPort: secured.port, listening: [plain, closing] }
  } catch (error) {
    await closing.drain(0)
    throw error
  }
}

const everyAddress = new Set(['0.0.0.0', '::', ''])

async function filesOf(
  source: CertificateSource,
  { host, externalUrl }: Pick<DoorOptions, 'host' | 'externalUrl'>,
): Promise<CertificateFiles> {
  if (!('selfSignedIn' in source)) return source
  const names = [
    ...(externalUrl === undefined ? [] : [new URL(externalUrl).hostname.replaceAll(/[[\]]/g, '')]),
    ...(everyAddress.has(host) ? [] : [host]),
  ]
  // Loaded only where it is asked for: the library for certificates takes 16 MiB.
  const { selfSigned } = await import('./self-signed.ts')
  return selfSigned(source.selfSignedIn, names)
}

/** 308, as Harbor's nginx: the method and the body stay what they were. */
function redirectToHttps(tlsPort: number, externalUrl: string | undefined): RequestHandler {
  const origin = externalUrl?.startsWith('https:') ? new URL(externalUrl).origin : null
  return (req: IncomingMessage, res: ServerResponse) => {
    const asked = admit(req)
    if (asked instanceof Problem) return sendProblem(req, res, asked, harborEnvelope)
    const location = (origin ?? `https://${authority(req, tlsPort)}`) + req.url!
    res.writeHead(308, { Location: location, 'Content-Length': 0 }).end()
  }
}

function authority(req: IncomingMessage, tlsPort: number): string {
  const local = req.socket.localAddress ?? 'localhost'
  // A client of HTTP/1.0 names no host: the address it reached us by is as good.
  const name = req.headers.host?.replace(/:\d+$/, '') ?? (isIPv6(local) ? `[${local}]` : local)
  return tlsPort === 443 ? name : `${name}:${tlsPort}`
}
