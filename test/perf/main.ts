import { fork, type ChildProcess } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cpuSecondsOf, machineCpuSeconds } from './cpu.ts'
import type { Load, LoadResult } from './load.ts'
import { measureStart, type StartFigures } from './start.ts'
import { REPOSITORY, seed, type Seeded } from './seed.ts'
import { distributionBehindNginx, haven, type Subject } from './subjects.ts'

const MIB = 1024 * 1024
const ROUNDS = 5
const WARM_UP_SECONDS = 0.5
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

type Row = {
  name: string
  unit: 'requests' | 'MiB'
  load: (seeded: Seeded, headers: Record<string, string>) => Omit<Load, 'port'>
}
type Sample = { rate: number; cpu: number; p99Ms: number; clientCores: number; foreignCores: number }

const read = (
  method: 'GET' | 'HEAD',
  path: string,
  expected: { bytes: number; sha256: string | null },
  connections: number,
  headers: Record<string, string>,
) =>
  ({
    kind: 'read',
    method,
    path: `/v2/${REPOSITORY}/${path}`,
    ...expected,
    connections,
    headers,
    seconds: 1.5,
  }) as const

const blob =
  (method: 'GET' | 'HEAD', bytes: number, connections: number) => (seeded: Seeded, headers: Record<string, string>) => {
    const digest = seeded.blobs[bytes]!
    const sha256 = method === 'HEAD' ? null : digest.slice('sha256:'.length)
    return read(method, `blobs/${digest}`, { bytes, sha256 }, connections, headers)
  }

const rows: Row[] = [
  {
    name: 'manifest GET by tag, c=16',
    unit: 'requests',
    load: ({ manifest }, headers) => read('GET', 'manifests/1', manifest, 16, { ...headers, accept: DOCKER_MANIFEST }),
  },
  { name: 'HEAD blob, c=16', unit: 'requests', load: blob('HEAD', MIB, 16) },
  { name: 'blob GET 1 MiB, c=4', unit: 'MiB', load: blob('GET', MIB, 4) },
  { name: 'blob GET 512 MiB, c=1', unit: 'MiB', load: blob('GET', 512 * MIB, 1) },
  {
    name: 'push 16 MiB, durable, c=4',
    unit: 'MiB',
    load: (_, headers) => ({
      kind: 'push',
      repository: REPOSITORY,
      bytes: 16 * MIB,
      connections: 4,
      headers,
      seconds: 2,
    }),
  },
]

type Options = { rounds: number; only: string; start: boolean; cold: boolean; peer: boolean }

/** Measures Haven beside its peer in one run: subjects take turns within each round, so that what else happens on the machine meets all of them. */
async function bench({ rounds, only, start, cold, peer }: Options) {
  const started = start ? await measureStart({ cold }) : null
  await using open = new AsyncDisposableStack()
  const subjects: Subject[] = [open.use(await haven('single'))]
  if (peer) subjects.push(open.use(await distributionBehindNginx()))
  const seeded = new Map<Subject, Seeded>()
  for (const subject of subjects) seeded.set(subject, await seed(subject, [MIB, 512 * MIB]))
  const chosen = rows.filter(({ name }) => name.includes(only))
  const samples = new Map<Row, Map<Subject, Sample[]>>(
    chosen.map((row) => [row, new Map(subjects.map((s) => [s, []]))]),
  )
  for (const row of chosen) {
    for (const subject of subjects) await measure(row, subject, seeded.get(subject)!, WARM_UP_SECONDS)
  }
  for (let round = 0; round < rounds; round++) {
    for (const row of chosen) {
      for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) {
        samples
          .get(row)!
          .get(subject)!
          .push(await measure(row, subject, seeded.get(subject)!))
      }
    }
  }
  const all = [...samples.values()].flatMap((bySubject) => [...bySubject.values()].flat())
  return {
    node: process.version,
    rounds,
    start: started,
    foreignCores: median(all.map((sample) => sample.foreignCores)),
    rows: chosen.map((row) => summary(row, subjects, samples.get(row)!)),
  }
}

async function measure(row: Row, subject: Subject, seeded: Seeded, seconds?: number): Promise<Sample> {
  const headers = await subject.headers(REPOSITORY)
  const wanted = row.load(seeded, headers)
  const load = { ...wanted, port: subject.port, seconds: seconds ?? wanted.seconds } as Load
  const child = fork(fileURLToPath(new URL('./load.ts', import.meta.url)))
  const closed = new Promise<void>((resolve) => void child.once('exit', () => resolve()))
  try {
    child.send(load)
    await told(child, 'ready')
    const counters = () => [cpuSecondsOf(subject.roots), cpuSecondsOf([child.pid!]), machineCpuSeconds()] as const
    const before = counters()
    child.send('go')
    const { result } = await told(child, 'result')
    const [server, client, machine] = counters().map((value, i) => value - before[i]!) as [number, number, number]
    child.send('enough')
    await closed
    const amount = row.unit === 'requests' ? result!.operations : result!.bytes / MIB
    return {
      rate: amount / result!.seconds,
      // µs a request, or s a GiB
      cpu: row.unit === 'requests' ? (server / amount) * 1e6 : (server / amount) * 1024,
      p99Ms: result!.p99Ms,
      clientCores: client / result!.seconds,
      foreignCores: Math.max(0, (machine - server - client) / result!.seconds),
    }
  } finally {
    child.kill()
  }
}

type Told = { ready?: true; result?: LoadResult; error?: string }

function told(child: ChildProcess, what: 'ready' | 'result'): Promise<Told> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`the load ended with ${code}`)))
    child.once('message', (message: Told) => {
      if (message[what]) resolve(message)
      else reject(new Error(message.error ?? `the load said ${JSON.stringify(message)}`))
    })
  })
}

function summary(row: Row, subjects: Subject[], samples: Map<Subject, Sample[]>) {
  const [ours, peer] = subjects.map((subject) => {
    const all = samples.get(subject)!
    return {
      name: subject.name,
      rate: median(all.map((s) => s.rate)),
      spread: spread(all.map((s) => s.rate)),
      cpu: Math.min(...all.map((s) => s.cpu)),
      p99Ms: median(all.map((s) => s.p99Ms)),
      samples: all,
    }
  })
  if (!ours) throw new Error('nothing was measured')
  // Round by round, since a round's noise meets both.
  const ratios = (peer?.samples ?? []).map((sample, round) => ours.samples[round]!.rate / sample.rate)
  return {
    row: row.name,
    unit: row.unit,
    ours,
    peer,
    ratio: ratios.length > 0 ? median(ratios) : null,
    lowerQuartile: ratios.length > 0 ? sorted(ratios)[Math.floor(ratios.length / 4)]! : null,
    cpuRatio: peer ? ours.cpu / peer.cpu : null,
  }
}

const sorted = (values: number[]) => values.toSorted((a, b) => a - b)
const median = (values: number[]) => sorted(values)[Math.floor(values.length / 2)]!
const spread = (values: number[]) => (Math.max(...values) - Math.min(...values)) / median(values)

type Result = Awaited<ReturnType<typeof bench>>

function markdown(result: Result): string {
  const number = (value: number) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3))
  const lines = result.rows.map(({ row, unit, ours, peer, ratio, lowerQuartile, cpuRatio }) => {
    const [rate, cpu] = unit === 'requests' ? ['/s', 'µs'] : [' MiB/s', 's/GiB']
    const measured = ({ rate: value, spread: wide }: typeof ours) =>
      `${number(value)}${rate} ±${Math.round(wide * 50)} %`
    return [
      '',
      row,
      measured(ours),
      peer ? measured(peer) : '',
      ratio === null ? '' : `**${ratio.toFixed(2)}** (${lowerQuartile!.toFixed(2)})`,
      `${number(ours.cpu)} ${cpu}`,
      peer ? `${number(peer.cpu)} ${cpu}` : '',
      cpuRatio === null ? '' : cpuRatio.toFixed(2),
      `${number(ours.p99Ms)} / ${peer ? number(peer.p99Ms) : ''}`,
      '',
    ]
      .join(' | ')
      .trim()
  })
  return [
    `Node ${result.node}, ${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'}), ${result.rounds} interleaved rounds; rates are medians, CPU the least of the rounds, ratio the median of the rounds (lower quartile).`,
    'Haven: bearer token checked, durable (fsync in Postgres and the blob store), access log on, plain HTTP, warm; its CPU includes Postgres, Redis and the log collector.',
    'Peer: no authentication, log off, durable (it syncs its files). The client runs on the same cores. Differences below 20 % mean nothing.',
    `Other work on the machine while measuring: ${result.foreignCores.toFixed(2)} cores (median).${result.foreignCores > 0.5 ? ' That is much: trust the CPU columns, not the rates.' : ''}`,
    '',
    '| work | Haven | nginx + Distribution 2.8 | ratio | CPU Haven | CPU peer | ratio | p99 ms |',
    '|---|---|---|---|---|---|---|---|',
    ...lines,
    ...(result.start ? ['', startLine(result.start)] : []),
  ].join('\n')
}

function startLine({ firstSeconds, againSeconds, coldSeconds, ours, all }: StartFigures): string {
  const cold =
    coldSeconds === null ? '' : ` Fresh clone, empty HOME, packages from the registry: ${coldSeconds.toFixed(0)} s.`
  const mib = (value: number) => `${Math.round(value)} MiB`
  return [
    `\`make up\`: ${firstSeconds.toFixed(1)} s in an empty home, ${againSeconds.toFixed(1)} s the next time, packages installed.${cold}`,
    `At rest, single: our Node processes ${mib(ours.rssMiB)} (${mib(ours.pssMiB)} when a page that several share is counted once), with Postgres and Redis ${mib(all.rssMiB)} (${mib(all.pssMiB)}).`,
  ].join('\n')
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: String(ROUNDS) },
    // For work on one path: rows by a part of their name, without the peer, without the starts. Such a run leaves no history.
    only: { type: 'string', default: '' },
    'no-peer': { type: 'boolean', default: false },
    'no-start': { type: 'boolean', default: false },
    cold: { type: 'boolean', default: false },
  },
})
const whole = values.only === '' && !values['no-peer'] && !values['no-start']
const result = await bench({
  rounds: Number(values.rounds),
  only: values.only,
  start: !values['no-start'],
  cold: values.cold,
  peer: !values['no-peer'],
})
const table = markdown(result)
if (whole) {
  const history = fileURLToPath(new URL('./history/', import.meta.url))
  mkdirSync(history, { recursive: true })
  const name = new Date().toISOString().slice(0, 16).replaceAll(/[:T]/g, '-')
  writeFileSync(`${history}${name}.json`, `${JSON.stringify(result, null, 2)}\n`)
  writeFileSync(`${history}${name}.md`, `${table}\n`)
}
process.stdout.write(`${table}\n`)
