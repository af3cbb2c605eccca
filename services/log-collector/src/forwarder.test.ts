import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { createServer, type Server, type TLSSocket } from 'node:tls'
import { afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { createLogger, openLogDestination } from '@haven/runtime'
import * as x509 from '@peculiar/x509'
import { Forwarder, type ForwarderOptions } from './forwarder.ts'
import { keep } from './line.ts'
import { readSyslog, SyslogFraming } from './syslog.ts'

interface Pair {
  readonly cert: string
  readonly key: string
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 24 * 3600 * 1000
const validity = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) }

/** An authority of the test's own, and how it signs. */
async function authority(name: string) {
  x509.cryptoProvider.set(webcrypto)
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const extensions = [new x509.BasicConstraintsExtension(true, 0, true)]
  const generator = x509.X509CertificateGenerator
  const options = { serialNumber: '01', name: `CN=${name}`, ...validity, signingAlgorithm: algorithm, keys, extensions }
  const certificate = await generator.createSelfSigned(options)
  let serial = 1
  return {
    ca: certificate.toString('pem'),
    async sign(names: x509.JsonGeneralNames): Promise<Pair> {
      const own = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
      const signed = await generator.create({
        serialNumber: String((serial += 1)).padStart(2, '0'),
        subject: 'CN=receiver',
        issuer: certificate.subject,
        ...validity,
        signingAlgorithm: algorithm,
        signingKey: keys.privateKey,
        publicKey: own.publicKey,
        extensions: [new x509.SubjectAlternativeNameExtension(names)],
      })
      const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', own.privateKey)).toString('base64')
      return {
        cert: signed.toString('pem'),
        key: `-----BEGIN PRIVATE KEY-----\n${pkcs8.match(/.{1,64}/g)!.join('\n')}\n-----END PRIVATE KEY-----\n`,
      }
    },
  }
}

let trusted: Awaited<ReturnType<typeof authority>>
let byAddress: Pair
let byOtherName: Pair
let byStranger: Pair
const toStop: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  trusted = await authority('trusted')
  byAddress = await trusted.sign([{ type: 'ip', value: '127.0.0.1' }])
  byOtherName = await trusted.sign([{ type: 'dns', value: 'logs.example' }])
  byStranger = await (await authority('stranger')).sign([{ type: 'ip', value: '127.0.0.1' }])
})
afterEach(async () => {
  for (const stop of toStop.splice(0).reverse()) await stop()
})

/** A syslog server with TLS. `closing`: it ends every connection as soon as it stands. */
async function receiver(pair: Pair, { port = 0, closing = false } = {}) {
  const got: string[] = []
  const sockets = new Set<TLSSocket>()
  const seen = { connections: 0, handshakes: 0 }
  const server: Server = createServer({ ...pair, minVersion: 'TLSv1.2' }, (socket) => {
    seen.handshakes += 1
    sockets.add(socket)
    socket.on('error', () => {})
    if (closing) return void socket.end()
    const framing = new SyslogFraming()
    socket.on('data', (chunk: Buffer) => got.push(...framing.push(chunk)))
  })
  server.on('connection', () => (seen.connections += 1))
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const stop = async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  }
  toStop.push(stop)
  return { got, seen, server, stop, port: (server.address() as AddressInfo).port }
}

function forwarder(port: number, options: Partial<ForwarderOptions> = {}) {
  const said: string[] = []
  const destination = openLogDestination({ stdout: { write: (text: string) => said.push(text) } })
  const log = createLogger({ service: 'log-collector', level: 'info', destination })
  const url = `tls://127.0.0.1:${port}`
  const made = new Forwarder({ url, ca: trusted.ca, log, retryMs: 5, ...options })
  toStop.push(async () => made[Symbol.asyncDispose]())
  return { made, said }
}

const kept = (n: number) => keep({ service: 'core', level: 'warn', msg: `n${n}`, time: '2026-01-01T00:00:00.000Z' })
const numbers = (got: readonly string[]) =>
  got.map((message) => Number(/"msg":"n(\d+)"/.exec(readSyslog(message, '').fields.msg)![1]))

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !condition();) {
    if (Date.now() > end) throw new Error(`it did not happen: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe('forwarding over TLS', () => {
  it('sends RFC 5424 by octet counting to a receiver whose certificate the authority signed (RFC 5425)', async () => {
    const to = await receiver(byAddress)
    const { made, said } = forwarder(to.port)
    for (let n = 0; n < 500; n += 1) made.send(kept(n))
    await until(() => to.got.length === 500)
    expect(to.got[0]).toMatch(/^<132>1 2026-01-01T00:00:00.000Z \S+ haven-core - - - \{"level":"warn"/)
    expect(numbers(to.got)).toEqual([...Array(500).keys()])
    expect([made.dropped, said]).toEqual([0, []])
  })

  it.each([
    ['an authority that is not trusted', () => byStranger, /UNABLE_TO_VERIFY|SELF_SIGNED|unable to verify/],
    ['another name', () => byOtherName, /ERR_TLS_CERT_ALTNAME_INVALID/],
  ])(
    'tells nothing to a receiver with the certificate of %s, and sends all when it has a good one',
    async (_, wrong, reason) => {
      const to = await receiver(wrong())
      const { made, said } = forwarder(to.port)
      for (let n = 0; n < 5; n += 1) made.send(kept(n))
      await until(() => to.seen.connections >= 3)
      expect(to.got).toEqual([])
      expect(said).toHaveLength(1) // not one at each attempt
      expect(said[0]).toMatch(reason)
      to.server.setSecureContext(byAddress)
      await until(() => to.got.length === 5)
      expect(numbers(to.got)).toEqual([0, 1, 2, 3, 4])
      expect(said.at(-1)).toContain('forwarding goes on')
    },
  )

  it('trusts no authority of the system when one was named, and no unknown one when none was', async () => {
    const to = await receiver(byAddress)
    const { said } = forwarder(to.port, { ca: undefined })
    await until(() => to.seen.connections >= 2)
    expect([to.got, said.length]).toEqual([[], 1])
  })

  it('connects again when the receiver is back, with the newest of what came meanwhile, and says how much was lost', async () => {
    const first = await receiver(byAddress)
    const { made, said } = forwarder(first.port, { bufferBytes: 20_000 })
    made.send(kept(0))
    await until(() => first.got.length === 1)
    await first.stop()
    await until(() => said.some((line) => line.includes('is away')))
    for (let n = 1; n <= 5000; n += 1) made.send(kept(n))
    expect(made.dropped).toBeGreaterThan(4000)

    const second = await receiver(byAddress, { port: first.port })
    await until(() => second.got.length > 0 && numbers(second.got).at(-1) === 5000)
    const got = numbers(second.got)
    expect(got).toEqual(Array.from(got, (_, at) => 5000 - got.length + 1 + at)) // without a gap to the newest
    expect(got.length + made.dropped).toBe(5000)
    expect(second.got.join('').length).toBeLessThan(20_000)
    expect(JSON.parse(said.at(-1)!)).toMatchObject({ msg: 'forwarding goes on', dropped: made.dropped })

    made.send(kept(6000))
    await until(() => numbers(second.got).at(-1) === 6000)
  })

  it('ends at once while the receiver is away', async () => {
    const to = await receiver(byAddress)
    await to.stop()
    const { made, said } = forwarder(to.port, { retryMs: 3_600_000 })
    await until(() => said.length === 1)
    made.send(kept(1))
    await made[Symbol.asyncDispose]()
  })

  it('is patient with a receiver that closes at once, and complains of it once', async () => {
    const to = await receiver(byAddress, { closing: true })
    const { said } = forwarder(to.port)
    await until(() => to.seen.handshakes >= 5)
    expect(said.filter((line) => line.includes('is away'))).toHaveLength(1)
  })
})
