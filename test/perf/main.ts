import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { inspect, parseArgs } from 'node:util'
import { randomBytes } from 'node:crypto'
import { accounts, type ListTimes } from './accounts.ts'
import { underAttack } from './attack.ts'
import { keepApart } from './disk.ts'
import { growth, seedMany, tagName, type Growth } from './growth.ts'
import { judge, median, type Shown } from './judge.ts'
import { interleave, type Field, type Samples } from './measure.ts'
import { eventListeners } from './listeners.ts'
import { buildPrograms } from './programs.ts'
import { failures, markdown, type RowResult, type Run } from './report.ts'
import { MANY, MIB, REPOSITORIES, rows, type Row, type Seeded } from './rows.ts'
import { REPOSITORY, seedBlob, seedConfig, seedImage, seedTagFolders, seedTags } from './seed.ts'
import { signIns } from './sign-ins.ts'
import { downloadMemory, objectStore, oneRepository, uploadMemory } from './specials.ts'
import { measureStart } from './start.ts'
import {
  behindNginx,
  certificateOf,
  distribution3,
  harborFloor,
  haven,
  staticFiles,
  stopAll,
  subjectNames,
  versions,
  type Subject,
  type SubjectKey,
} from './subjects.ts'
import { targets, type RowId } from './targets.ts'

const { values: options } = parseArgs({
  options: {
    tier: { type: 'string', default: 'full' },
    rounds: { type: 'string' },
    /** Rows by the beginning of their id (P5, or "P5 1 MiB"), commas between; such a run leaves no history. */
    only: { type: 'string', default: '' },
    /** What grows, by ascending numbers of rows. */
    sizes: { type: 'string', default: '1000,10000,100000,1000000' },
    'no-start': { type: 'boolean', default: false },
    /** Also `make up` in a fresh clone with nothing cached. */
    cold: { type: 'boolean', default: false },
  },
})
if (options.tier !== 'gate' && options.tier !== 'full') throw new Error(`--tier is gate or full, not ${options.tier}`)
const tier = options.tier
const rounds = Number(options.rounds ?? (tier === 'gate' ? 3 : 7))
const only = options.only.split(',').filter((part) => part !== '')
const GATE_SECONDS = 1
/** Half a minute of pushes in all is what Node takes to compile what they need; half a second of each is what the gate has. */
const WARM_UP_SECONDS = tier === 'gate' ? 0.5 : 3
const MANY_TAGS = 100_000
const WINDOW = 12_000

const say = (text: string) => void process.stderr.write(`  ${text}\n`)
const wanted = (id: RowId) => only.length === 0 || only.some((part) => id === part || id.startsWith(`${part} `))
const results: RowResult[] = []
let grown: Growth | null = null
let lists: ListTimes | null = null
const brokenOff: string[] = []

function add(id: RowId, name: string, shown: Shown, ours: SubjectKey = 'haven', bytes?: number) {
  const verdicts = targets[id].flatMap((target) => judge(target, shown, ours) ?? [])
  results.push({
    id,
    name,
    ours,
    unit: bytes === undefined ? 'requests' : 'MiB',
    samples: shown.samples ?? null,
    verdicts,
  })
}

/** Starts who the rows are about, seeds them, and lets them take turns. */
async function beside(ours: SubjectKey) {
  const chosen = rows.filter(
    (row) => row.subjects[0] === ours && wanted(row.id) && (tier === 'full' || row.tier === 'gate'),
  )
  if (chosen.length === 0) return
  await using open = new AsyncDisposableStack()
  const field = new Map<SubjectKey, { subject: Subject; seeded: Seeded }>()
  for (const key of new Set(chosen.flatMap(({ subjects }) => subjects))) {
    say(`starting ${subjectNames[key]}`)
    const subject = open.use(await start(key, field))
    field.set(key, { subject, seeded: await seed(subject, chosen) })
  }
  const plan = { rounds, seconds: tier === 'gate' ? GATE_SECONDS : null, warmUpSeconds: WARM_UP_SECONDS, say }
  const measured = await interleave(chosen, field, plan)
  const missed = chosen.filter((row) => tier === 'gate' && !passes(row, measured.get(row)!))
  if (missed.length > 0) {
    say(`once more: ${missed.map(({ id }) => id).join(', ')}`)
    for (const [row, samples] of await interleave(missed, field, plan)) measured.set(row, samples)
  }
  for (const row of chosen) {
    const values = row.id === 'P10' ? (await oneRepository(field.get('haven')!.subject, rounds)).values : undefined
    const shown = { samples: measured.get(row)!, mixed: row.meanwhile !== undefined, ...(values && { values }) }
    add(row.id, row.name, shown, ours, row.bytes)
  }
}

const passes = (row: Row, samples: Samples) =>
  targets[row.id].every(
    (target) => judge(target, { samples, mixed: row.meanwhile !== undefined }, row.subjects[0])?.passed ?? true,
  )

function start(key: SubjectKey, field: Field): Promise<Subject> {
  const certificate = () => certificateOf(field.get('haven-tls')!.subject.installation!)
  switch (key) {
    case 'haven':
    case 'split':
    case 'haven-tls':
      return haven(key)
    case 'D2':
    case 'N3':
      return behindNginx(key)
    case 'N3-tls':
      return behindNginx(key, certificate())
    case 'D3':
      return distribution3()
    case 'H':
      return harborFloor()
    case 'static':
      return staticFiles(key)
    case 'static-tls':
      return staticFiles(key, certificate())
  }
}

/** What the chosen rows ask of this subject, and nothing else. */
async function seed(subject: Subject, chosen: readonly Row[]): Promise<Seeded> {
  const its = chosen.filter(({ subjects }) => subjects.includes(subject.key))
  const needs = (...ids: RowId[]) => its.some(({ id }) => ids.includes(id))
  const sizes = [MIB, ...(needs('P5 16 MiB', 'P7 16 MiB') ? [16 * MIB] : []), ...(needs('P6') ? [512 * MIB] : [])]
  const blobs = new Map<number, string>()
  for (const size of sizes) blobs.set(size, await seedBlob(subject, REPOSITORY, randomBytes(size)))
  if (subject.put) return { image: NOTHING, typical: null, blobs, unseen: () => [] }
  const image = await seedImage(subject, REPOSITORY, '1', Array<number>(6).fill(4096))
  const typical = needs('P20') ? await seedImage(subject, REPOSITORY, '2', Array<number>(20).fill(2.5 * MIB)) : null
  if (needs('P10')) for (const repository of REPOSITORIES) await seedConfig(subject, repository)
  if (needs('P13') && subject.dataFolder) seedTagFolders(subject, MANY, MANY_TAGS)
  const grows = subject.installation !== undefined && needs('P2', 'P13')
  if (grows) await seedMany(subject, MANY_TAGS)
  const peers = needs('P2') && !grows ? await seedTags(subject, REPOSITORY, 400) : []
  let window = 0
  // In an order that is not the index's: 7919 is prime, so a hundred thousand steps meet each tag once.
  const unseen = () => {
    const from = window++ * WINDOW
    return Array.from(
      { length: WINDOW },
      (_, n) => `/v2/${MANY}/manifests/${tagName((((from + n) * 7919) % MANY_TAGS) + 1)}`,
    )
  }
  return { image, typical, blobs, unseen: grows ? unseen : () => peers }
}

const NOTHING = { manifest: { path: '/', bytes: 0, sha256: '' }, blobs: [] }

async function memory() {
  if (wanted('P14')) {
    say('memory of downloads')
    // All clients of the load have one address.
    await using ours = await haven('haven', { PROXY_SOCKETS_PER_CLIENT: '1000' })
    await using peer = await behindNginx('N3')
    add('P14', 'peak memory of 256 downloads of 16 MiB', await downloadMemory(ours, peer))
  }
  if (wanted('P15') && tier === 'full') {
    say('memory of uploads')
    await using ours = await haven('haven')
    add('P15', 'peak memory of 16 pushes of 256 MiB', await uploadMemory(ours))
  }
}

async function listeners() {
  if (tier !== 'full' || !wanted('listeners')) return
  say('a thousand listeners')
  add('listeners', 'a thousand streams of live events on one process', await eventListeners())
}

async function attack() {
  if (tier !== 'full' || !wanted('A54')) return
  say('a client among slow, idle and stalled ones')
  await using ours = await haven('haven')
  add('A54', 'a manifest while a thousand connections are slow, idle or stalled', await underAttack(ours, rounds))
}

async function store() {
  if (!wanted('P16')) return
  say('requests to an object store')
  const { shown, large } = await objectStore({ large: tier === 'full' })
  add('P16', 'what a push and a pull ask of S3 and Postgres', shown)
  if (large) add('P16 512 MiB', 'what a large push asks of S3', large)
}

async function grow() {
  const about: Partial<Record<RowId, string>> = {
    P12: 'a page of artifacts while a repository grows',
    'P13 growth': 'a page of tags while a repository grows',
    P17: 'deletion while a repository grows',
    growth: 'other pages and look-ups while everything grows',
  }
  const ids = Object.keys(about) as RowId[]
  if (tier !== 'full' || !ids.some(wanted)) return
  const { growth: found, shown } = await growth(options.sizes.split(',').map(Number), say)
  grown = found
  for (const id of ids) add(id, about[id]!, shown.get(id)!)
}

async function people() {
  if (tier !== 'full') return
  if (wanted('P21'))
    add('P21', 'Basic on each request; manifests while programs and people sign in', await signIns(say))
  if (!wanted('accounts')) return
  const shown = await accounts(say)
  lists = shown.times
  add('accounts', 'p50 of pages in a full installation by that in a small one, the worst of each list', shown.lists)
}

/** A part that breaks off must not take along what the others measured. */
async function part(name: string, run: () => Promise<void>) {
  try {
    await run()
  } catch (error) {
    brokenOff.push(name)
    process.stderr.write(`${inspect(error)}\n`)
    process.exitCode = 1
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stopAll().finally(() => process.exit(130)))
}
const apart = keepApart()
process.once('exit', () => apart[Symbol.dispose]())
const began = Date.now()
buildPrograms()
// Asked first: what lacks a program says so before it has measured for half an hour.
const measuredBeside = versions()
const started =
  tier === 'full' && only.length === 0 && !options['no-start'] ? await measureStart({ cold: options.cold }) : null
for (const ours of ['haven', 'split', 'haven-tls'] as const)
  await part(`beside ${subjectNames[ours]}`, () => beside(ours))
await part('memory', memory)
await part('listeners', listeners)
await part('attack', attack)
await part('store', store)
await part('grow', grow)
await part('people', people)
const samples = results.flatMap((row) => [...(row.samples?.values() ?? [])].flat())
const finished: Run = {
  tier,
  at: new Date(began).toISOString(),
  minutes: (Date.now() - began) / 60_000,
  node: process.version,
  machine: `${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'})`,
  versions: measuredBeside,
  rounds,
  foreignCores: samples.length > 0 ? median(samples.map(({ foreignCores }) => foreignCores)) : null,
  rows: results,
  growth: grown,
  lists,
  start: started,
  brokenOff,
}
const table = markdown(finished)
if (only.length === 0 && tier === 'full') {
  const history = fileURLToPath(new URL('./history/', import.meta.url))
  mkdirSync(history, { recursive: true })
  const name = finished.at.slice(0, 16).replaceAll(/[:T]/g, '-')
  const plain = {
    ...finished,
    rows: results.map((row) => ({ ...row, samples: row.samples && Object.fromEntries(row.samples) })),
  }
  writeFileSync(`${history}${name}.json`, `${JSON.stringify(plain, null, 2)}\n`)
  writeFileSync(`${history}${name}.md`, `${table}\n`)
}
process.stdout.write(`${table}\n`)
if (tier === 'gate') {
  const failed = [...failures(finished), ...brokenOff.map((name) => `${name} broke off`)]
  const passed = results.flatMap(({ verdicts }) => verdicts.filter((verdict) => verdict.passed)).length
  for (const failure of failed) process.stdout.write(`${failure}\n`)
  process.stdout.write(`${passed} passed, ${failed.length} failed\n`)
  if (failed.length > 0) process.exitCode = 1
}
