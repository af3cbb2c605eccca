import { BlockList, isIP } from 'node:net'
import { problems } from '@haven/errors'

export type AddressPolicy = {
  /** Networks of the operator's own that are allowed although they are private or local: `10.1.0.0/16`, `192.168.4.7`. */
  readonly allow: readonly string[]
  /** `address:port` of our own services: refused even when their network is allowed. */
  readonly ownAddresses?: readonly string[]
}

const REFUSED = [
  '0.0.0.0/8', // "this network"
  '10.0.0.0/8',
  '100.64.0.0/10', // carrier-grade NAT
  '127.0.0.0/8',
  '169.254.0.0/16', // link-local, cloud metadata
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24', // 6to4 relays
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4', // multicast
  '240.0.0.0/4', // reserved, broadcast
  '::/96', // unspecified, loopback, IPv4-compatible
  '64:ff9b::/96', // NAT64: an IPv4 address in disguise
  '64:ff9b:1::/48',
  '100::/64',
  '2001::/23', // Teredo and other protocol assignments
  '2001:db8::/32',
  '2002::/16', // 6to4: an IPv4 address in disguise
  'fc00::/7', // unique local, and the metadata service fd00:ec2::254
  'fe80::/10', // link-local
  'fec0::/10',
  'ff00::/8', // multicast
]

/** Where the servers usually are that administrators name themselves: directories, receivers of logs (RFC 1918, RFC 4193). */
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']
/** Among these, what clouds keep for their machines: the metadata services of AWS and of Google. */
const METADATA = ['fd00:ec2::/32', 'fd20:ce::/64']

// Servers that read a line at a time can take a header or a body for a command (the "bad ports" of the Fetch standard, and databases).
const REFUSED_PORTS = new Set(
  (
    '21 22 23 25 53 110 111 119 135 139 143 179 389 445 465 512 513 514 587 636 873 993 995 ' +
    '1433 1521 2049 3306 5432 6000 6379 6432 6697 11211 26379 27017'
  )
    .split(' ')
    .map(Number),
)

/**
 * Decides about one resolved address. Addresses are compared in binary, never as text (threats.md R11; CVE-2023-42282,
 * CVE-2024-29415): `BlockList` reads `::ffff:7f00:1` as 127.0.0.1 and leaves zones out.
 */
export class AddressGuard {
  readonly #refused = networks(REFUSED)
  readonly #private = networks(PRIVATE)
  readonly #metadata = networks(METADATA)
  readonly #allowed: BlockList
  readonly #own = new Map<number, BlockList>()

  /** @throws problems.settingsInvalid naming an entry that is no address or network. */
  constructor({ allow, ownAddresses = [] }: AddressPolicy) {
    this.#allowed = networks(allow)
    for (const entry of ownAddresses) {
      const [, host = '', port] = /^\[?([^\]]*)\]?:(\d+)$/.exec(entry) ?? []
      const list = this.#own.get(Number(port)) ?? new BlockList()
      addNetwork(list, host)
      this.#own.set(Number(port), list)
    }
  }

  /** Whether HTTP may be spoken to it. */
  allows(address: string, port: number): boolean {
    return !REFUSED_PORTS.has(port) && this.#mayReach(address, port, false)
  }

  /**
   * Whether a connection of another protocol may be opened to it, whose own ports are `protocolPorts`. Private networks are allowed
   * (services/decisions/0011-what-is-dialled.md); this machine, link-local and metadata addresses are not.
   */
  allowsDialling(address: string, port: number, protocolPorts: readonly number[]): boolean {
    return (!REFUSED_PORTS.has(port) || protocolPorts.includes(port)) && this.#mayReach(address, port, true)
  }

  #mayReach(address: string, port: number, privateToo: boolean): boolean {
    const version = isIP(address)
    if (version === 0) return false
    const family = version === 4 ? 'ipv4' : 'ipv6'
    if (this.#own.get(port)?.check(address, family)) return false
    if (this.#allowed.check(address, family) || !this.#refused.check(address, family)) return true
    return privateToo && this.#private.check(address, family) && !this.#metadata.check(address, family)
  }
}

function networks(entries: readonly string[]): BlockList {
  const list = new BlockList()
  for (const entry of entries) addNetwork(list, entry)
  return list
}

/** @throws problems.settingsInvalid */
export function addNetwork(list: BlockList, entry: string) {
  const [, network = '', prefix] = /^([^/%]*)(?:\/(\d{1,3}))?$/.exec(entry) ?? []
  const version = isIP(network)
  const longest = version === 4 ? 32 : 128
  const length = prefix === undefined ? longest : Number(prefix)
  if (version === 0 || length > longest) {
    throw problems.settingsInvalid({ message: `"${entry}" is neither an IP address nor a network such as 10.1.0.0/16` })
  }
  list.addSubnet(network, length, version === 4 ? 'ipv4' : 'ipv6')
}
