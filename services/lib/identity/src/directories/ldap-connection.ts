import { isIP, type Socket } from 'node:net'
import { connect as connectTls, getCACertificates } from 'node:tls'
import { Problem, problems } from '@haven/errors'
import { CircuitBreaker, type OutboundClient } from '@haven/outbound'
import { Client, InvalidCredentialsError, NoSuchObjectError, ResultCodeError } from 'ldapts'

export type LdapServer = {
  /** `ldap://`, `ldaps://` or `ldap+starttls://` and a host, with a port where it is another than 389 or 636. */
  readonly url: string
  /** Whom the platform signs in as to search; empty: nobody. */
  readonly searchDn: string
  readonly searchPassword: string
  /** From the first packet to the last of one conversation: a sign-in, a search. */
  readonly timeoutSeconds: number
  readonly verifyCertificate: boolean
}

/** One conversation: the connection, which is signed in with the search DN. */
export type LdapConversation = {
  readonly client: Client
  /** Signs in with the search DN again, after somebody else's password was tried. */
  becomeSearcher(): Promise<void>
}

const defaultSeconds = 5
const maxSeconds = 300

class TooLate extends Error {}

/**
 * The way to directories, one for each process. One that gave no answer five times in a row is not asked for ten seconds, so that
 * sign-ins fail at once instead of each after the whole timeout.
 */
export class LdapClient {
  readonly #outbound: OutboundClient
  readonly #breaker: CircuitBreaker

  /** @param now milliseconds of a clock that never goes back. */
  constructor(outbound: OutboundClient, now: () => number = () => performance.now()) {
    this.#outbound = outbound
    this.#breaker = new CircuitBreaker(now)
  }

  /**
   * Opens a connection, signs in with the search DN, talks, and closes it, all within the server's timeout. Referrals to other servers are
   * never followed.
   * @throws directoryFailed whose reason repeats nothing that the server said.
   */
  async talk<T>(server: LdapServer, talk: (with_: LdapConversation) => Promise<T>): Promise<T> {
    if (!this.#breaker.admits(server.url)) {
      throw problems.directoryFailed({
        reason: 'it did not answer the last requests and is asked again in some seconds',
      })
    }
    return this.talkAnyway(server, talk)
  }

  /** As `talk`, also to a server that did not answer before: for whoever wants to know whether it does now. */
  async talkAnyway<T>(server: LdapServer, talk: (with_: LdapConversation) => Promise<T>): Promise<T> {
    try {
      const said = await this.#converse(server, talk)
      this.#breaker.answered(server.url)
      return said
    } catch (error) {
      const failure = failureOf(error)
      if (isSilence(failure)) this.#breaker.silent(server.url)
      else this.#breaker.answered(server.url)
      throw failure
    }
  }

  async #converse<T>(server: LdapServer, talk: (with_: LdapConversation) => Promise<T>): Promise<T> {
    const address = addressOf(server.url)
    const seconds = server.timeoutSeconds < 1 ? defaultSeconds : Math.min(server.timeoutSeconds, maxSeconds)
    const deadline = new AbortController()
    const timer = setTimeout(() => deadline.abort(new TooLate(`no answer within ${seconds} s`)), seconds * 1000)
    const late = new Promise<never>((_, reject) => {
      deadline.signal.addEventListener('abort', () => reject(deadline.signal.reason as Error), { once: true })
    })
    const sockets: Socket[] = []
    const converse = async () => {
      const { host, port, security } = address
      const tls = trustFor(server)
      const socket = await this.#outbound.dial({
        host,
        port,
        protocolPorts: [389, 636],
        ...(security === 'tls' && { tls }),
        signal: deadline.signal,
      })
      sockets.push(socket)
      const client = new Client({
        url: `ldap://${isIP(host) === 6 ? `[${host}]` : host}:${port}`,
        createConnection: () => socket,
        // Called for StartTLS only: ldaps is open already.
        createSecureConnection: () => {
          const secure = connectTls({ ...tls, socket, host, ...(!isIP(host) && { servername: host }) })
          sockets.push(secure)
          return secure
        },
      })
      if (security === 'starttls') await client.startTLS()
      const becomeSearcher = () => signInSearcher(client, server)
      await becomeSearcher()
      const said = await talk({ client, becomeSearcher })
      await client.unbind()
      return said
    }
    try {
      return await Promise.race([converse(), late])
    } finally {
      clearTimeout(timer)
      for (const socket of sockets) socket.on('error', () => undefined).destroy()
    }
  }
}

function signInSearcher(client: Client, { searchDn, searchPassword }: LdapServer): Promise<void> {
  return client.bind(searchDn, searchPassword).catch((error: unknown) => {
    if (!(error instanceof InvalidCredentialsError)) throw error
    throw problems.directoryFailed({ reason: 'it refuses the search DN or its password' }, { cause: error })
  })
}

const trustFor = ({ verifyCertificate }: LdapServer) => ({
  rejectUnauthorized: verifyCertificate,
  ca: [...getCACertificates('default'), ...getCACertificates('system')],
})

type Address = { host: string; port: number; security: 'none' | 'tls' | 'starttls' }

/** Harbor takes a host without a scheme for `ldap://`, and port 636 for TLS whatever the scheme says. */
function addressOf(url: string): Address {
  const text = url.includes('://') ? url.trim() : `ldap://${url.trim()}`
  const [, scheme = '', named = '', digits] =
    /^(ldap|ldaps|ldap\+starttls):\/\/(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?\/?$/i.exec(text) ?? []
  const kind = scheme.toLowerCase()
  const port = digits === undefined ? (kind === 'ldaps' ? 636 : 389) : Number(digits)
  if (named === '' || port < 1 || port > 65_535)
    throw problems.directoryFailed({ reason: 'ldap_url is no address of a server' })
  const security = kind === 'ldaps' || port === 636 ? 'tls' : kind === 'ldap' ? 'none' : 'starttls'
  return { host: named.replaceAll(/[[\]]/g, ''), port, security }
}

const certificateCodes = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_SSL|ERR_TLS|EPROTO/
const unreachableCodes = /^(?:ECONN|EHOST|ENET|ENOTFOUND|EAI_|EPIPE|ETIMEDOUT|EADDR)/

function failureOf(error: unknown): Problem {
  if (problems.outboundRefused.is(error)) {
    return problems.directoryFailed({ reason: 'ldap_url is an address that may not be reached' }, { cause: error })
  }
  // The system's error is its cause; nobody need read two sentences about one thing.
  if (problems.outboundFailed.is(error)) return failureOf(error.cause)
  if (error instanceof Problem) return error
  return problems.directoryFailed({ reason: reasonOf(error) }, { cause: error })
}

function reasonOf(error: unknown): string {
  const code = codeOf(error)
  if (error instanceof TooLate) return error.message
  if (certificateCodes.test(code)) return 'its certificate is not trusted'
  if (unreachableCodes.test(code)) return 'it cannot be reached'
  if (error instanceof NoSuchObjectError) return 'it has no entry with the base DN'
  if (error instanceof ResultCodeError) return `it refused a request with result code ${error.code}`
  return 'the connection ended before its answer'
}

const codeOf = (error: unknown) =>
  typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''

/** Whether nothing was heard of it; what it said, a wrong certificate too, is an answer. */
const isSilence = ({ cause }: Problem) => cause instanceof TooLate || unreachableCodes.test(codeOf(cause))
