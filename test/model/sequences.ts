import type { Driver } from './driver.ts'
import { emptyWorld, step, type Manifest, type Operation, type Plan, type World } from './model.ts'

export const REPOSITORIES = 2
const TAGS = ['a', 'b', 'c']
const BLOBS = 7
const IMAGES = 4
const INDEXES = 2
const ACCESSORIES = 3
const SLOTS = 2
/** More possible worlds than this: the model has lost its way, and a run that goes on proves nothing. */
const MAX_WORLDS = 2_000

type Random = (below: number) => number
export type Step = { readonly op: Operation; readonly through: 0 | 1 }

/** The points at which the second front process may die (fault-point.ts). */
export const faultPoints = [
  'session.create',
  'chunk.beforeStage',
  'chunk.afterStage',
  'chunk.afterDb',
  'finish.beforeHash',
  'finish.afterVerify',
  'finish.afterMove',
  'finish.beforeDb',
  'finish.afterDb',
  'finish.beforeAnswer',
  'mount.beforeDb',
  'manifest.beforeDb',
  'manifest.afterCheck',
  'manifest.afterDb',
  'blob.beforeUnlink',
] as const

const some = <T>(random: Random, from: readonly T[]): T => from[random(from.length)]!

/** What there is to push: images that share blobs, indexes of images, and artifacts about others. */
export function makePlan(random: Random): Plan {
  // An upload's first piece must not be one byte: see driver.ts.
  const blobs = Array.from({ length: BLOBS }, (_, n) => (n === 0 ? 0 : 4 + random(50_000)))
  const manifests: Manifest[] = []
  const someBlobs = () => [...new Set(Array.from({ length: 1 + random(3) }, () => random(BLOBS)))]
  const earlier = () => random(manifests.length)
  for (let n = 0; n < IMAGES; n++) manifests.push({ blobs: someBlobs(), children: [], subject: null })
  for (let n = 0; n < INDEXES; n++) {
    const children = [...new Set([earlier(), earlier()])]
    manifests.push({ blobs: [], children, subject: random(4) === 0 ? earlier() : null })
  }
  for (let n = 0; n < ACCESSORIES; n++) manifests.push({ blobs: someBlobs(), children: [], subject: earlier() })
  return { blobs, manifests }
}

export type Shape = {
  readonly steps: number
  /** How many of the steps, in a hundred, break something. */
  readonly crashes: number
  readonly faults: readonly string[]
}

/** A sequence that begins with a second front process, and ends with reading everything. */
export function makeSteps(random: Random, plan: Plan, { steps, crashes, faults }: Shape): Step[] {
  const fault = () => (crashes === 0 ? null : some(random, faults))
  const sequence: Step[] = crashes === 0 ? [] : [{ op: { do: 'restart', fault: fault() }, through: 0 }]
  for (let n = 0; n < steps; n++) {
    const through = random(2) as 0 | 1
    const op: Operation =
      random(100) >= crashes
        ? randomOperation(random, plan)
        : random(4) === 0
          ? { do: 'kill front' }
          : { do: 'restart', fault: fault() }
    sequence.push({ op, through })
  }
  // Half of the sequences end with what time leaves of them.
  if (random(2) === 0)
    sequence.push(...([{ do: 'age' }, garbage(random, 0)] as const).map((op) => ({ op, through: 0 as const })))
  return [...sequence, ...readEverything(plan)]
}

function randomOperation(random: Random, plan: Plan): Operation {
  const repo = random(REPOSITORIES)
  const blob = random(BLOBS)
  const manifest = random(plan.manifests.length)
  const tag = some(random, TAGS)
  const slot = random(SLOTS)
  const dice = random(100)
  if (dice < 20) return { do: 'push blob', repo, blob }
  if (dice < 24) return { do: 'mount', repo, from: 1 - repo, blob }
  if (dice < 29) return { do: 'head blob', repo, blob }
  if (dice < 32) return { do: 'get blob', repo, blob }
  if (dice < 35) return { do: 'delete blob', repo, blob }
  if (dice < 38) return { do: 'open upload', slot, repo, blob: 1 + random(BLOBS - 1) }
  if (dice < 46) return { do: 'append', slot }
  if (dice < 50) return { do: 'finish upload', slot }
  if (dice < 51) return { do: 'cancel upload', slot }
  if (dice < 53) return { do: 'where is upload', slot }
  if (dice < 71) return { do: 'put manifest', repo, manifest, tag: random(3) === 0 ? null : tag }
  if (dice < 74) return { do: 'get manifest', repo, manifest }
  if (dice < 76) return { do: 'head manifest', repo, manifest }
  if (dice < 80) return { do: 'get tag', repo, tag }
  if (dice < 83) return { do: 'list tags', repo }
  if (dice < 86) return { do: 'list referrers', repo, manifest }
  if (dice < 89) return { do: 'delete tag', repo, tag }
  if (dice < 93) return { do: 'delete manifest', repo, manifest }
  if (dice < 96) return { do: 'age' }
  return garbage(random, 4)
}

/** One in so many runs is killed while it goes on; 0 for none. */
function garbage(random: Random, oneIn: number): Operation {
  const untagged = random(2) === 0
  return { do: 'collect garbage', untagged, killAfterMs: oneIn > 0 && random(oneIn) === 0 ? random(300) : null }
}

function readEverything(plan: Plan): Step[] {
  const ops: Operation[] = Array.from({ length: REPOSITORIES }, (_, repo) => [
    { do: 'list tags' as const, repo },
    ...TAGS.map((tag) => ({ do: 'get tag' as const, repo, tag })),
    ...plan.blobs.map((_size, blob) => ({ do: 'get blob' as const, repo, blob })),
    ...plan.manifests.flatMap((_manifest, manifest) => [
      { do: 'get manifest' as const, repo, manifest },
      { do: 'list referrers' as const, repo, manifest },
    ]),
  ]).flat()
  return ops.map((op) => ({ op, through: 0 }))
}

export type Violation = { readonly at: number; readonly step: Step; readonly expected: string[]; readonly saw: string }

/**
 * Carries a sequence out and follows it in the model: every answer must be one of a world that is still possible, and after an operation
 * without an answer both worlds are, with it and without. Null when that held to the end.
 */
export async function run(plan: Plan, steps: readonly Step[], driver: Driver): Promise<Violation | null> {
  let worlds: World[] = [emptyWorld(REPOSITORIES)]
  for (const [at, taken] of steps.entries()) {
    const possible = worlds.flatMap((world) => step(plan, world, taken.op))
    const saw = await driver.carryOut(taken.op, taken.through)
    const next =
      saw === null
        ? possible.flatMap(({ before, after }) => [before, after])
        : possible.filter(({ answer }) => answer === saw).map(({ after }) => after)
    if (next.length === 0) {
      return { at, step: taken, expected: [...new Set(possible.map(({ answer }) => answer))], saw: saw! }
    }
    worlds = [...new Map(next.map((world) => [JSON.stringify(world), world])).values()]
    if (worlds.length > MAX_WORLDS) throw new Error(`${worlds.length} worlds are possible after step ${at}`)
  }
  return null
}

/** A shorter sequence that still fails: parts are left out, ever smaller ones, until time is up. Each try is a run of its own. */
export async function shrink(
  steps: readonly Step[],
  fails: (steps: readonly Step[]) => Promise<boolean>,
  withinMs: number,
): Promise<Step[]> {
  const endsAt = performance.now() + withinMs
  let shortest = [...steps]
  for (let size = Math.ceil(shortest.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < shortest.length;) {
      if (performance.now() > endsAt) return shortest
      const without = shortest.toSpliced(from, size)
      if (await fails(without)) shortest = without
      else from += size
    }
  }
  return shortest
}

/** For people: a step a line. */
export const told = (steps: readonly Step[]): string =>
  steps
    .map(
      ({ op, through }, n) => `${String(n).padStart(4)}  ${through === 1 ? 'beside' : 'front '}  ${JSON.stringify(op)}`,
    )
    .join('\n')
