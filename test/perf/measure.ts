import { cpuSecondsOf, machineCpuSeconds, ownCpuSeconds } from './cpu.ts'
import { prepareLoad, type Load } from './load.ts'
import { MIB, type Row, type Seeded } from './rows.ts'
import type { Subject, SubjectKey } from './subjects.ts'

/** More of others' work than this, and a round is measured again, once. */
export const TOO_MUCH_FOREIGN_CORES = 0.5

export type Sample = {
  /** Operations a second, or MiB a second. */
  rate: number
  /** Of the server: µs an operation, or s a GiB. */
  cpu: number
  p50Ms: number
  p99Ms: number
  clientCores: number
  foreignCores: number
}

export type Samples = Map<SubjectKey, Sample[]>

/** Subjects and what they hold, all of them running. */
export type Field = ReadonlyMap<SubjectKey, { subject: Subject; seeded: Seeded }>

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
/** By then the load that runs meanwhile has filled the server. */
const HEAD_START_MS = 300

/** One row on one subject. */
export async function measure(row: Row, key: SubjectKey, field: Field, seconds = row.seconds): Promise<Sample> {
  const { subject, seeded } = field.get(key)!
  const began = Date.now()
  const loadOf = async (part: Pick<Row, 'connections' | 'scope'>, what: ReturnType<Row['load']>): Promise<Load> => ({
    port: subject.port,
    tls: subject.tls,
    headers: { ...(await subject.headers(part.scope)), ...(part.scope !== 'none' && { accept: OCI_MANIFEST }) },
    connections: part.connections,
    seconds,
    ...(row.atMost !== undefined && { atMost: row.atMost }),
    ...what,
  })
  using load = await prepareLoad(await loadOf(row, row.load(subject, seeded)))
  using other = row.meanwhile
    ? await prepareLoad({ ...(await loadOf(row.meanwhile, row.meanwhile.load)), seconds: seconds + 0.5 })
    : null
  const meanwhile = other?.run()
  if (meanwhile) await new Promise((resolve) => setTimeout(resolve, HEAD_START_MS))
  const everybody = [...field.values()].flatMap((each) => each.subject.roots)
  const counters = () =>
    [cpuSecondsOf(subject.roots), cpuSecondsOf(everybody), machineCpuSeconds(), ownCpuSeconds()] as const
  const before = counters()
  const result = await load.run()
  const [server, all, machine, own] = counters().map((value, i) => value - before[i]!) as [
    number,
    number,
    number,
    number,
  ]
  const others = await meanwhile
  subject.sweep(began)
  const amount = row.bytes === undefined ? result.operations : (result.operations * row.bytes) / MIB
  // What ran meanwhile ran a little longer than what is measured.
  const client = result.cpuSeconds + (others ? (others.cpuSeconds * result.seconds) / others.seconds : 0)
  return {
    rate: amount / result.seconds,
    cpu: row.bytes === undefined ? (server / amount) * 1e6 : (server / amount) * 1024,
    p50Ms: result.p50Ms,
    p99Ms: result.p99Ms,
    clientCores: client / result.seconds,
    foreignCores: Math.max(0, (machine - all - client - own) / result.seconds),
  }
}

type Plan = { rounds: number; seconds: number | null; warmUpSeconds: number; say: (text: string) => void }

/** Rounds in which the subjects of a row take turns, so that what else happens on the machine meets all of them. */
export async function interleave(
  chosen: readonly Row[],
  field: Field,
  { rounds, seconds, warmUpSeconds, say }: Plan,
): Promise<Map<Row, Samples>> {
  const found = new Map<Row, Samples>(chosen.map((row) => [row, new Map(row.subjects.map((key) => [key, []]))]))
  const oneRound = async (row: Row, round: number) => {
    const order = round % 2 === 0 ? row.subjects : row.subjects.toReversed()
    const samples = new Map<SubjectKey, Sample>()
    for (const key of order) {
      try {
        samples.set(key, await measure(row, key, field, seconds ?? row.seconds))
      } catch (error) {
        throw new Error(`${row.id} on ${key}`, { cause: error })
      }
    }
    return samples
  }
  for (const row of chosen) {
    for (const key of row.subjects) await measure(row, key, field, warmUpSeconds)
  }
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1} of ${rounds}`)
    for (const row of chosen) {
      let samples = await oneRound(row, round)
      if (foreignOf(samples) > TOO_MUCH_FOREIGN_CORES) {
        const again = await oneRound(row, round)
        if (foreignOf(again) < foreignOf(samples)) samples = again
      }
      for (const [key, sample] of samples) found.get(row)!.get(key)!.push(sample)
    }
  }
  return found
}

const foreignOf = (samples: ReadonlyMap<SubjectKey, Sample>) =>
  Math.max(...[...samples.values()].map(({ foreignCores }) => foreignCores))
