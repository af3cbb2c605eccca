import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { call, expectStatus } from './http.ts'
import { median, type Shown } from './judge.ts'
import { MIB } from './rows.ts'
import { REPOSITORY, blobPath, seedBlob, seedImage } from './seed.ts'
import { run } from './specials.ts'
import type { Scope, Subject } from './subjects.ts'

const scope: Scope = { repositories: [REPOSITORY], actions: 'pull,push' }
const SLOW_UPLOADS = 100
/** Each has fewer connections than one address may have. */
const ATTACKERS = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5']
const BYTE_EVERY_MS = 1_000

/**
 * A54: p99 of a client that pulls a manifest while a thousand connections of others are idle, send a byte a second of headers or of an upload, or
 * have asked for 64 MiB and do not read, by its p99 without them. In turns, and a median, since neither is steady.
 */
export async function underAttack(subject: Subject, rounds: number): Promise<Shown> {
  const { manifest } = await seedImage(subject, REPOSITORY, 'attacked', [4096])
  const large = await seedBlob(subject, REPOSITORY, randomBytes(64 * MIB))
  const headers = await subject.headers(scope)
  const operation = { kind: 'read', method: 'GET', paths: [manifest.path], status: 200, bytes: manifest.bytes } as const
  const p99 = async () => (await run(subject, scope, { operation, connections: 4, seconds: 2 })).p99Ms
  const start = async () => {
    const path = `/v2/${REPOSITORY}/blobs/uploads/`
    const opened = await expectStatus(202, call(subject, 'POST', path, { headers }), path)
    return opened.headers.location!
  }
  const uploads = await Promise.all(Array.from({ length: SLOW_UPLOADS }, start))
  const head = (line: string, ...more: string[]) =>
    [`${line} HTTP/1.1`, 'Host: h', `Authorization: ${headers.authorization}`, ...more].join('\r\n')
  const attacks = [
    ...Array.from({ length: 400 }, () => ({ text: 'GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n', drips: false })),
    ...Array.from({ length: 400 }, () => ({ text: 'GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: ', drips: true })),
    ...uploads.map((at) => ({ text: `${head(`PATCH ${at}`, 'Content-Length: 1000000')}\r\n\r\n`, drips: true })),
    ...Array.from({ length: 100 }, () => ({
      text: `${head(`GET ${blobPath(subject, REPOSITORY, large)}`)}\r\n\r\n`,
      drips: false,
    })),
  ]
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const alone = await p99()
    await using attackers = await attacked(subject.port, attacks)
    ratios.push((await p99()) / alone)
    if (attackers.turnedAway() > 0) throw new Error(`${attackers.turnedAway()} attackers were turned away at once`)
  }
  return { values: { 'p99 under attack by alone': median(ratios) } }
}

type Attackers = AsyncDisposable & { turnedAway(): number }

/** Opens all of them; the attack goes on until it is disposed. */
async function attacked(port: number, attacks: readonly { text: string; drips: boolean }[]): Promise<Attackers> {
  const sockets = await Promise.all(
    attacks.map(async ({ text, drips }, n) => {
      const socket = connect({ port, host: '127.0.0.1', localAddress: ATTACKERS[n % ATTACKERS.length]! })
      await new Promise<void>((resolve, reject) => socket.once('error', reject).once('connect', resolve))
      socket.on('error', () => undefined) // `close` follows
      socket.write(text)
      if (drips) dripInto(socket)
      else socket.pause()
      return socket
    }),
  )
  return {
    turnedAway: () => sockets.filter(({ closed }) => closed).length,
    async [Symbol.asyncDispose]() {
      const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve).destroy()))
      await Promise.all(closed)
    },
  }
}

function dripInto(socket: Socket): void {
  const timer = setInterval(() => socket.write('x'), BYTE_EVERY_MS)
  socket.once('close', () => clearInterval(timer))
}
