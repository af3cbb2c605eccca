import { BlockList, isIP } from 'node:net'
import { problems } from '@haven/errors'

/** Which addresses may be connected to. Compared as binary addresses, never as text (threats.md R11; CVE-2023-42282, CVE-2024-29415). */
export type AddressPolicy = {
  /** Networks of the operator's own that are allowed although they are private or local: `10.1.0.0/16`, `192.168.4.7`. */
  allow: readonly string[]
}

const IPV4_REFUSED = [
  ['0.0.0.0', 8], // "this network"
  ['10.0.0.0', 8],
  ['100.64.0.0', 10], // carrier-grade NAT
  ['127.0.0.0', 8],
  ['169.254.0.0', 16], // link-local, cloud metadata
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4], // multicast
  ['240.0.0.0', 4], // reserved, broadcast
] as const

const IPV6_REFUSED = [
  ['::', 96], // unspecified, loopback, IPv4-compatible
  ['64:ff9b::', 96], // NAT64: an IPv4 address in disguise
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23], // Teredo and other protocol assignments
  ['2001:db8::', 32],
  ['2002::', 16], // 6to4: an IPv4 address in disguise
  ['fc00::', 7], // unique local, and the metadata service fd00:ec2::254
  ['fe80::', 10], // link-local
  ['fec0::', 10],
  ['ff00::', 8], // multicast
] as const

/** Decides about one resolved address. */
export class AddressGuard {
  readonly #refused = new BlockList()
  readonly #allowed = new BlockList()

  /** @throws Problem naming an entry of `allow` that is no address or network. */
  constructor(policy: AddressPolicy) {
    for (const [network, prefix] of IPV4_REFUSED) this.#refused.addSubnet(network, prefix, 'ipv4')
    for (const [network, prefix] of IPV6_REFUSED) this.#refused.addSubnet(network, prefix, 'ipv6')
    for (const entry of policy.allow) addNetwork(this.#allowed, entry)
  }

  allows(address: string): boolean {
    const [plain, family] = unmapped(address)
    if (family === null) return false
    return this.#allowed.check(plain, family) || !this.#refused.check(plain, family)
  }
}

/** `::ffff:7f00:1` is 127.0.0.1. */
function unmapped(address: string): [string, 'ipv4' | 'ipv6' | null] {
  const version = isIP(address)
  if (version === 0) return [address, null]
  if (version === 4) return [address, 'ipv4']
  const canonical = new URL(`http://[${address.split('%')[0]}]/`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical)
  if (!mapped) return [canonical, 'ipv6']
  const [high, low] = [Number.parseInt(mapped[1]!, 16), Number.parseInt(mapped[2]!, 16)]
  return [[high >> 8, high & 255, low >> 8, low & 255].join('.'), 'ipv4']
}

function addNetwork(list: BlockList, entry: string) {
  const [network = '', prefix] = entry.split('/')
  const version = isIP(network)
  const longest = version === 4 ? 32 : 128
  const length = prefix === undefined ? longest : Number(prefix)
  if (version === 0 || !Number.isInteger(length) || length < 0 || length > longest) {
    throw problems.settingsInvalid({ message: `"${entry}" is neither an IP address nor a network such as 10.1.0.0/16` })
  }
  list.addSubnet(network, length, version === 4 ? 'ipv4' : 'ipv6')
}
