import { fork } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { machineCpuSeconds, usageOf } from './cpu.ts'
import type { Load, LoadResult } from './load.ts'
import { measureStart, type StartFigures } from './start.ts'
import { REPOSITORY, seed, type Seeded } from './seed.ts'
import { distributionBehindNginx, haven, type Subject } from './subjects.ts'

const MIB = 1024 * 1024
const ROUNDS = 5
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

type Row = {
  name: string
  unit: 'requests' | 'MiB'
  load: (seeded: Seeded, headers: Record<string, string>) => Omit<Load, 'port'>
}
type Sample = { rate: number; cpu: number; p99Ms: number }

const read = (
  method: 'GET' | 'HEAD',
  path: string,
  connections: number,
  headers: Record<string, string>,
  seconds = 1.5,
) => ({ kind: 'read', method, path: `/v2/${REPOSITORY}/${path}`, connections, headers, seconds }) as const

const rows: Row[] = [
  {
    name: 'manifest GET by tag, c=16',
    unit: 'requests',
    load: (_, headers) => read('GET', 'manifests/1', 16, { ...headers, accept: DOCKER_MANIFEST }),
  },
  {
    name: 'HEAD blob, c=16',
    unit: 'requests',
    load: ({ blobs }, headers) => read('HEAD', `blobs/${blobs[MIB]}`, 16, headers),
  },
  {
    name: 'blob GET 1 MiB, c=4',
    unit: 'MiB',
    load: ({ blobs }, headers) => read('GET', `blobs/${blobs[MIB]}`, 4, headers),
  },
  {
    name: 'blob GET 512 MiB, c=1',
    unit: 'MiB',
    load: ({ blobs }, headers) => read('GET', `blobs/${blobs[512 * MIB]}`, 1, headers),
  },
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

/** Measures Haven beside its peer in one run: subjects take turns within each round, so that what else happens on the machine meets all of them. */
async function bench(rounds: number) {
  const start = await measureStart()
  await using ours = await haven('single')
  await using peer = await distributionBehindNginx()
  const subjects: Subject[] = [ours, peer]
  const atRest = usageOf(ours.roots).rssMiB
  const seeded = new Map<Subject, Seeded>()
  for (const subject of subjects) seeded.set(subject, await seed(subject, [MIB, 512 * MIB]))
  const samples = new Map<Row, Map<Subject, Sample[]>>(rows.map((row) => [row, new Map(subjects.map((s) => [s, []]))]))
  const noise: number[] = []
  for (let round = 0; round < rounds; round++) {
    for (const row of rows) {
      for (const subject of subjects) {
        const measured = await measure(row, subject, seeded.get(subject)!)
        samples.get(row)!.get(subject)!.push(measured)
        noise.push(measured.foreignCores)
      }
    }
  }
  return { start, atRest, noise: median(noise), table: rows.map((row) => summary(row, subjects, samples.get(row)!)) }
}

async function measure(row: Row, subject: Subject, seeded: Seeded): Promise<Sample & { foreignCores: number }> {
  const headers = await subject.headers(REPOSITORY)
  const load = { ...row.load(seeded, headers), port: subject.port } as Load
  const [before, machineBefore] = [usageOf(subject.roots), machineCpuSeconds()]
  const { result, clientCpu } = await inChild(load)
  const [after, machineAfter] = [usageOf(subject.roots), machineCpuSeconds()]
  const cpuSeconds = after.cpuSeconds - before.cpuSeconds
  const amount = row.unit === 'requests' ? result.operations : result.bytes / MIB
  const foreign = machineAfter - machineBefore - cpuSeconds - clientCpu
  return {
    rate: amount / result.seconds,
    // µs a request, or s a GiB
    cpu: row.unit === 'requests' ? (cpuSeconds / amount) * 1e6 : (cpuSeconds / amount) * 1024,
    p99Ms: result.p99Ms,
    foreignCores: Math.max(0, foreign / result.seconds),
  }
}

function inChild(load: Load): Promise<{ result: LoadResult; clientCpu: number }> {
  const child = fork(fileURLToPath(new URL('./load.ts', import.meta.url)))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('message', (answer: { result?: LoadResult; error?: string }) => {
      const clientCpu = usageOf([child.pid!]).cpuSeconds
      if (answer.result) resolve({ result: answer.result, clientCpu })
      else reject(new Error(answer.error))
    })
    child.send(load)
  })
}

function summary(row: Row, subjects: Subject[], samples: Map<Subject, Sample[]>) {
  const of = (subject: Subject) => {
    const all = samples.get(subject)!
    return {
      name: subject.name,
      rate: median(all.map((s) => s.rate)),
      spread: spread(all.map((s) => s.rate)),
      cpu: Math.min(...all.map((s) => s.cpu)),
      p99Ms: median(all.map((s) => s.p99Ms)),
    }
  }
  const [ours, peer] = subjects.map(of)
  return {
    row: row.name,
    unit: row.unit,
    ours: ours!,
    peer: peer!,
    ratio: ours!.rate / peer!.rate,
    cpuRatio: ours!.cpu / peer!.cpu,
  }
}

const sorted = (values: number[]) => values.toSorted((a, b) => a - b)
const median = (values: number[]) => sorted(values)[Math.floor(values.length / 2)]!
const spread = (values: number[]) => (Math.max(...values) - Math.min(...values)) / median(values)

function markdown(result: Awaited<ReturnType<typeof bench>>): string {
  const number = (value: number) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3))
  const unit = (u: 'requests' | 'MiB') => (u === 'requests' ? ['/s', 'µs'] : [' MiB/s', 's/GiB'])
  const lines = result.table.map(({ row, unit: u, ours, peer, ratio, cpuRatio }) => {
    const [rate, cpu] = unit(u)
    return `| ${row} | ${number(ours.rate)}${rate} ±${Math.round(ours.spread * 50)} % | ${number(peer.rate)}${rate} ±${Math.round(peer.spread * 50)} % | **${ratio.toFixed(2)}** | ${number(ours.cpu)} ${cpu} | ${number(peer.cpu)} ${cpu} | ${cpuRatio.toFixed(2)} |`
  })
  return [
    `Node ${process.version}, ${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'}), ${ROUNDS} interleaved rounds, medians; CPU is the least of the rounds.`,
    'Haven: bearer token checked, durable (fsync in Postgres and the blob store), access log on, plain HTTP, warm; its CPU includes Postgres and Redis.',
    'Peer: no authentication, log off. Differences below 20 % mean nothing.',
    `Other work on the machine: ${result.noise.toFixed(2)} cores (median).`,
    '',
    '| work | Haven | nginx + Distribution 2.8 | ratio | CPU Haven | CPU peer | ratio |',
    '|---|---|---|---|---|---|---|',
    ...lines,
    '',
    startLine(result.start, result.atRest),
  ].join('\n')
}

const startLine = (start: StartFigures, atRest: number) =>
  `\`make up\`: ${start.firstSeconds.toFixed(1)} s in an empty home, ${start.againSeconds.toFixed(1)} s the next time, packages installed. At rest, single: our Node processes ${Math.round(start.ourMiB)} MiB, with Postgres and Redis ${Math.round(atRest)} MiB.`

const { values } = parseArgs({ options: { rounds: { type: 'string', default: String(ROUNDS) } } })
const result = await bench(Number(values.rounds))
const history = fileURLToPath(new URL('./history/', import.meta.url))
mkdirSync(history, { recursive: true })
const name = new Date().toISOString().slice(0, 16).replaceAll(/[:T]/g, '-')
writeFileSync(`${history}${name}.json`, `${JSON.stringify(result, null, 2)}\n`)
writeFileSync(`${history}${name}.md`, `${markdown(result)}\n`)
process.stdout.write(`${markdown(result)}\n`)
