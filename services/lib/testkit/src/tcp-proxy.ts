import { createServer, connect, type AddressInfo, type Socket } from 'node:net'

/**
 * What happens to connections. `pass`: nothing. `black hole`: nothing is passed any more and nothing is closed, as behind a firewall that
 * drops; new connections are accepted and stay silent. `refuse`: open connections are reset and new ones at once.
 */
export type TcpMode = 'pass' | 'black hole' | 'refuse'

/** Stands between a client and a TCP server and breaks their connections as told: the faults of a network on one machine. */
export class TcpProxy implements AsyncDisposable {
  /** Called with what a client sends before it is passed on. `cut the answer`: it is passed on, and the next answer never arrives. */
  onSent: (bytes: Buffer) => 'pass' | 'cut the answer' = () => 'pass'
  #mode: TcpMode = 'pass'
  readonly #pairs = new Set<readonly [Socket, Socket]>()
  readonly #server = createServer({ pauseOnConnect: true }, (client) => this.#accept(client))
  readonly #target: Target

  private constructor(target: Target) {
    this.#target = target
  }

  /** Stands before a server; of a database's URL that may be one on a socket. */
  static async start(target: Target | string): Promise<TcpProxy> {
    const proxy = new TcpProxy(typeof target === 'string' ? targetOf(target) : target)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** The same database by way of this. */
  before(url: string): string {
    const through = new URL(url)
    through.searchParams.delete('host')
    through.host = `127.0.0.1:${this.port}`
    return through.href
  }

  get mode(): TcpMode {
    return this.#mode
  }

  /** Bytes that came during a black hole are passed on when it ends. */
  set mode(mode: TcpMode) {
    this.#mode = mode
    for (const [client, server] of this.#pairs) {
      if (mode === 'refuse') client.resetAndDestroy()
      else if (mode === 'black hole') [client, server].forEach((side) => side.pause())
      else [client, server].forEach((side) => side.resume())
    }
  }

  async [Symbol.asyncDispose]() {
    for (const pair of this.#pairs) for (const side of pair) side.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #accept(client: Socket) {
    if (this.#mode === 'refuse') return client.resetAndDestroy()
    const server = connect(this.#target)
    const pair = [client, server] as const
    this.#pairs.add(pair)
    let cut = false
    client.on('data', (bytes) => {
      if (this.onSent(bytes) === 'cut the answer') cut = true
      server.write(bytes)
    })
    server.on('data', (bytes) => {
      if (cut) client.resetAndDestroy()
      else client.write(bytes)
    })
    for (const [side, other] of [pair, [server, client] as const]) {
      side.on('error', () => undefined) // what a broken connection says; `close` follows
      side.on('end', () => other.end())
      side.on('close', () => {
        other.destroy()
        this.#pairs.delete(pair)
      })
    }
    if (this.#mode === 'black hole') return server.pause()
    client.resume()
  }
}

type Target = { host: string; port: number } | { path: string }

function targetOf(databaseUrl: string): Target {
  const { hostname: host, port, searchParams } = new URL(databaseUrl)
  const folder = searchParams.get('host')
  return folder === null ? { host, port: Number(port) } : { path: `${folder}/.s.PGSQL.${port}` }
}
