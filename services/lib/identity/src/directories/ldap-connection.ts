import { lookup as resolveName } from 'node:dns'
import { BlockList, connect as connectTcp, isIP, type LookupFunction, type Socket } from 'node:net'
import { connect as connectTls, getCACertificates } from 'node:tls'
import { Problem, problems } from '@haven/errors'
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
 * Opens a connection, signs in with the search DN, talks, and closes it, all within the server's timeout. Referrals to other servers are
 * never followed.
 * @throws directoryFailed whose reason repeats nothing that the server said.
 */
export async function talkToLdap<T>(server: LdapServer, talk: (with_: LdapConversation) => Promise<T>): Promise<T> {
  const address = addressOf(server.url)
  const seconds = server.timeoutSeconds < 1 ? defaultSeconds : Math.min(server.timeoutSeconds, maxSeconds)
  const sockets: Socket[] = []
  const client = clientOf(address, server, sockets)
  const becomeSearcher = () =>
    client.bind(server.searchDn, server.searchPassword).catch((error: unknown) => {
      if (!(error instanceof InvalidCredentialsError)) throw error
      throw problems.directoryFailed({ reason: 'it refuses the search DN or its password' }, { cause: error })
    })
  const converse = async () => {
    if (address.security === 'starttls') await client.startTLS()
    await becomeSearcher()
    const said = await talk({ client, becomeSearcher })
    await client.unbind()
    return said
  }
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TooLate(`no answer within ${seconds} s`)), seconds * 1000)
  })
  try {
    return await Promise.race([converse(), deadline])
  } catch (error) {
    throw failureOf(error)
  } finally {
    clearTimeout(timer)
    for (const socket of sockets) socket.on('error', () => undefined).destroy()
  }
}

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
  if (refusedPorts.has(port)) throw refusedAddress()
  const security = kind === 'ldaps' || port === 636 ? 'tls' : kind === 'ldap' ? 'none' : 'starttls'
  return { host: named.replaceAll(/[[\]]/g, ''), port, security }
}

function clientOf({ host, port, security }: Address, { verifyCertificate }: LdapServer, sockets: Socket[]): Client {
  const kept = <S extends Socket>(socket: S): S => {
    sockets.push(socket)
    return socket
  }
  if (isIP(host) && !mayReach(host)) throw refusedAddress()
  const to = { host, port, lookup: checkedLookup }
  const tls = {
    rejectUnauthorized: verifyCertificate,
    ca: [...getCACertificates('default'), ...getCACertificates('system')],
    ...(!isIP(host) && { servername: host }),
  }
  // ldapts calls it with an address for ldaps, and with the open socket for StartTLS.
  const secure = (given: unknown) => {
    const socket = given !== null && typeof given === 'object' && 'socket' in given ? (given.socket as Socket) : null
    return kept(connectTls({ ...tls, ...(socket ? { socket, host } : to) }))
  }
  return new Client({
    url: `${security === 'tls' ? 'ldaps' : 'ldap'}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`,
    createConnection: () => kept(connectTcp(to)),
    createSecureConnection: secure,
  })
}

// Directories live in private networks, often on this machine. What no directory is behind: "this network", link-local and with it the
// metadata services of clouds, multicast (threats.md R11, A91).
const refusedNetworks = new BlockList()
for (const [network, bits] of [
  ['0.0.0.0', 8],
  ['169.254.0.0', 16],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const)
  refusedNetworks.addSubnet(network, bits, 'ipv4')
for (const [network, bits] of [
  ['::', 128],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
  ['fd00:ec2::254', 128],
] as const)
  refusedNetworks.addSubnet(network, bits, 'ipv6')

// Servers that could take a line of what we send for a command, and databases.
const refusedPorts = new Set(
  '21 22 23 25 53 80 110 111 143 443 465 512 513 514 587 873 993 995 2049 3306 5432 6379 6432 11211 26379 27017'
    .split(' ')
    .map(Number),
)

const mayReach = (address: string) => !refusedNetworks.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')

const refusedAddress = () => problems.directoryFailed({ reason: 'ldap_url is an address that may not be reached' })

/** The connection goes to an address that was checked, so that the name cannot change its mind in between. */
const checkedLookup: LookupFunction = (host, options, callback) =>
  resolveName(host, { ...options, all: true }, (error, addresses) => {
    const [first] = addresses ?? []
    if (error || first === undefined) callback(error ?? new Error(`${host} has no address`), '', 0)
    else if (!addresses.every(({ address }) => mayReach(address))) callback(refusedAddress(), '', 0)
    else if (options.all) callback(null, addresses)
    else callback(null, first.address, first.family)
  })

const certificateCodes = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_SSL|ERR_TLS|EPROTO/
const unreachableCodes = /^(?:ECONN|EHOST|ENET|ENOTFOUND|EAI_|EPIPE|ETIMEDOUT|EADDR)/

function failureOf(error: unknown): Error {
  if (error instanceof Problem) return error
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
  const reason =
    error instanceof TooLate
      ? error.message
      : certificateCodes.test(code)
        ? 'its certificate is not trusted'
        : unreachableCodes.test(code)
          ? 'it cannot be reached'
          : error instanceof NoSuchObjectError
            ? 'it has no entry with the base DN'
            : error instanceof ResultCodeError
              ? `it refused a request with result code ${error.code}`
              : 'the connection ended before its answer'
  return problems.directoryFailed({ reason }, { cause: error })
}
