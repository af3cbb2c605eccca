import { BlockList, isIP, type Socket } from 'node:net'
import { list, type Setting } from '@haven/config'
import { socketAddress } from '@haven/runtime'

type Forwarded = { readonly clientAddress: string; readonly scheme: 'http' | 'https' }

/** Balancers in front of the door: what they say of a client is believed, and nobody else (threats.md R6; CVE-2026-20896). */
export class TrustedProxies {
  readonly networks: readonly string[]
  readonly #blocks: BlockList

  /** @throws RangeError for what is neither an address nor a network */
  constructor(networks: readonly string[]) {
    this.networks = networks
    this.#blocks = networks.reduce(add, new BlockList())
  }

  /**
   * Who the client of a request is, and how he came: by the connection, or by `X-Forwarded-*` where that is a balancer's. Of several addresses
   * the last counts that is no balancer's: those before it are what the client himself said.
   * @param header of the request, by its name in small letters
   */
  clientOf(socket: Socket, header: (name: string) => string | readonly string[] | undefined): Forwarded {
    const connected: Forwarded = {
      clientAddress: socketAddress({ socket }),
      scheme: 'encrypted' in socket ? 'https' : 'http',
    }
    if (this.networks.length === 0 || !this.#has(connected.clientAddress)) return connected
    const said = wordsOf(header('x-forwarded-for')).toReversed()
    // Beyond what is no address nobody can be told from anybody.
    const end = said.findIndex((address) => isIP(address) === 0)
    const known = end === -1 ? said : said.slice(0, end)
    const scheme = wordsOf(header('x-forwarded-proto')).at(-1)
    return {
      clientAddress: known.find((address) => !this.#has(address)) ?? known.at(-1) ?? connected.clientAddress,
      scheme: scheme === 'http' || scheme === 'https' ? scheme : connected.scheme,
    }
  }

  #has(address: string): boolean {
    const family = isIP(address)
    return family !== 0 && this.#blocks.check(address, family === 6 ? 'ipv6' : 'ipv4')
  }
}

const wordsOf = (header: string | readonly string[] | undefined) =>
  (typeof header === 'string' ? header : (header?.join(',') ?? ''))
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '')

function add(blocks: BlockList, network: string): BlockList {
  const [address = '', bits, ...more] = network.split('/')
  const family = isIP(address)
  const width = family === 6 ? 128 : 32
  const prefix = bits === undefined ? width : /^\d{1,3}$/.test(bits) ? Number(bits) : -1
  if (family === 0 || more.length > 0 || prefix < 0 || prefix > width) {
    throw new RangeError(`${JSON.stringify(network)} is neither an address nor a network`)
  }
  blocks.addSubnet(address, prefix, family === 6 ? 'ipv6' : 'ipv4')
  return blocks
}

/** A list of networks, made ready when the settings are read, so that a wrong one stops the start. */
export function trustedProxies(doc: string): Setting<TrustedProxies> {
  const texts = list({ doc, default: [] })
  return {
    ...texts,
    kind: 'networks',
    expected: 'IP addresses and networks such as 10.1.0.0/16, separated by commas',
    secretsIn: () => [],
    parse(given) {
      const parsed = texts.parse(given)
      if ('wrong' in parsed) return parsed
      try {
        return { value: new TrustedProxies(parsed.value) }
      } catch (error) {
        if (error instanceof RangeError) return { wrong: error.message }
        throw error
      }
    },
  }
}
