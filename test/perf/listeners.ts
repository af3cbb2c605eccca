import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import { cpuSecondsOf, forgetPeaks, peakMemoryMiB } from './cpu.ts'
import { basic } from './http.ts'
import type { Shown } from './judge.ts'
import { PASSWORD, REPOSITORY, seedAccounts, seedImage } from './seed.ts'
import { frontOf } from './specials.ts'
import { haven, type Subject } from './subjects.ts'

const LISTENERS = 1_000
/** One person and one address may have only so many streams. */
const PEOPLE = 100
const ADDRESSES = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5', '127.0.0.6']
/** Longer than a heartbeat comes after another. */
const QUIET_MS = 20_000
const PUSHES = 20

/** What a thousand streams of live events take of the process that clients speak to. Each of them must be told of each push. */
export async function eventListeners(): Promise<Shown> {
  await using subject = await haven('haven')
  const people = Array.from({ length: PEOPLE }, (_, n) => `listener-${n}`)
  await seedAccounts(subject, people)
  const push = (tag: string) => seedImage(subject, REPOSITORY, tag, [1024])
  const first = await listen(subject, people[0]!, ADDRESSES[0]!)
  await push('warm')
  await first.told(1)
  first.end()

  const front = frontOf(subject)
  forgetPeaks(front)
  await sleep(1_000)
  const before = peakMemoryMiB(front)
  const streams: Stream[] = []
  for (let n = 0; n < LISTENERS; n++) {
    streams.push(await listen(subject, people[n % PEOPLE]!, ADDRESSES[n % ADDRESSES.length]!))
  }
  try {
    const quietCpu = await cpuDuring(subject, () => sleep(QUIET_MS))
    const pushCpu = await cpuDuring(subject, async () => {
      for (let n = 0; n < PUSHES; n++) await push(`told-${n}`)
      await Promise.all(streams.map((stream) => stream.told(PUSHES)))
    })
    return {
      values: {
        'memory of 1,000 listeners': peakMemoryMiB(front) - before,
        'cores while nothing happens': quietCpu / (QUIET_MS / 1000),
        'CPU of a push that 1,000 are told of': (pushCpu / PUSHES) * 1000,
      },
    }
  } finally {
    for (const stream of streams) stream.end()
  }
}

type Stream = { told(pushes: number): Promise<void>; end(): void }

/** Resolves when the stream has begun. */
async function listen({ port }: Subject, person: string, localAddress: string): Promise<Stream> {
  const headers = { authorization: basic(person, PASSWORD) }
  const path = '/api/v2.0/events?topics=artifact.pushed'
  const asked: ClientRequest = request({ host: '127.0.0.1', port, path, headers, localAddress, agent: false }).end()
  const stream = await new Promise<IncomingMessage>((resolve, reject) =>
    asked.once('response', resolve).once('error', reject),
  )
  if (stream.statusCode !== 200) throw new Error(`a stream of events was answered ${stream.statusCode}`)
  let pushes = 0
  let looked = () => {}
  stream.setEncoding('utf8').on('data', (text: string) => {
    pushes += text.match(/^event: artifact\.pushed$/gm)?.length ?? 0
    looked()
  })
  const ended = new Promise<never>((_, reject) => {
    const fail = () => reject(new Error(`a stream of events ended after ${pushes} pushes`))
    stream.once('close', fail).once('error', fail)
  })
  ended.catch(() => undefined) // of interest only to who waits
  return {
    told: (count) =>
      Promise.race([
        ended,
        new Promise<void>((resolve) => {
          looked = () => pushes >= count && resolve()
          looked()
        }),
      ]),
    end: () => stream.destroy(),
  }
}

async function cpuDuring({ roots }: Subject, work: () => Promise<unknown>): Promise<number> {
  const before = cpuSecondsOf(roots)
  await work()
  return cpuSecondsOf(roots) - before
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
