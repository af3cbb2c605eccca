import { connect, isIP, type LookupFunction, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'

export type DialTarget = {
  /** A name or an address; IPv6 without brackets. */
  readonly host: string
  readonly port: number
  /** Ports of the protocol that is to be spoken, among those that HTTP is never sent to. */
  readonly protocolPorts: readonly number[]
  /** For TLS from the first byte; the certificate is compared with `host`, which is sent as SNI. */
  readonly tls?: Pick<ConnectionOptions, 'ca' | 'rejectUnauthorized'>
  /** Ends the opening; an open connection is not its matter. */
  readonly signal: AbortSignal
}

/** Connects to what `lookup` answers. @throws the system's error, or the reason of the signal. */
export async function connectTo({ host, port, tls, signal }: DialTarget, lookup: LookupFunction): Promise<Socket> {
  const plain = await opened(connect({ host, port, lookup }), 'connect', signal)
  if (!tls) return plain
  const servername = isIP(host) === 0 ? { servername: host } : {}
  return opened(connectTls({ ...tls, ...servername, host, socket: plain }), 'secureConnect', signal)
}

function opened(socket: Socket, event: 'connect' | 'secureConnect', signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const settle = (error: Error | null) => {
      signal.removeEventListener('abort', abort)
      socket.off('error', settle).off('close', cut).off(event, done)
      if (error === null) return resolve(socket)
      socket.on('error', () => undefined).destroy() // what else befalls it, is of the same cause
      reject(error)
    }
    const done = () => settle(null)
    const cut = () => settle(Object.assign(new Error('closed before it was open'), { code: 'ECONNRESET' }))
    const abort = () => settle(signal.reason as Error)
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    socket.once('error', settle).once('close', cut).once(event, done)
  })
}
