import type { Database, Sql } from '@haven/db'
import type { ProjectDirectory } from '@haven/projects'
import { defaultArtifactSettings, type ArtifactPolicies, type ArtifactSettings } from '../deps.ts'

/** What collecting needs. No storage: only registryctl touches bytes. */
export type GcDeps = Readonly<{
  db: Database
  settings: Pick<ArtifactSettings, 'promiseSeconds' | 'trashSeconds' | 'tombstoneSeconds'>
  /** Gives the bytes of what goes back to the project. */
  quota?: ArtifactPolicies['quota']
  projects: Pick<ProjectDirectory, 'byId'>
}>

export const gcDeps = (given: Omit<GcDeps, 'settings'> & { settings?: Partial<GcDeps['settings']> }): GcDeps => ({
  ...given,
  settings: { ...defaultArtifactSettings, ...given.settings },
})

/** One run, and what it may do. */
export type GcRun = Readonly<{
  /** Into the records of what was removed. */
  executionId: number | null
  actor: string
  /** What was pushed or asked for within this time stays. Default: the promise that clients were given. */
  graceSeconds?: number
  /** Batches at the same time. Default 1. */
  workers?: number
  signal?: AbortSignal
  /** Called in each transaction that removes something; a rejection undoes it (a job's lease). */
  hold?: (tx: Sql) => Promise<void>
  /** Told after each window of rows. `position` and `end` are ids: how far the phase is. */
  onProgress?: (progress: { position: number; end: number }) => void
}>

/** Rows looked at in one statement: what bounds its time, however many of them are garbage. */
export const WINDOW = 5000
/** Rows removed in one transaction. */
export const BATCH = 200

/**
 * How many seconds before its end a promise counts as over. A promise says until when, the run's grace since when: the difference
 * is the time that promises are given for.
 */
export const leadSeconds = ({ settings }: GcDeps, { graceSeconds }: GcRun): number =>
  graceSeconds === undefined ? 0 : Math.max(0, settings.promiseSeconds - graceSeconds)

export function* batchesOf<T>(items: readonly T[], size = BATCH): Generator<T[]> {
  for (let from = 0; from < items.length; from += size) yield items.slice(from, from + size)
}

/**
 * Walks ids in windows and hands the candidates of each to `remove` in batches, `workers` at a time. A window is finished before the
 * next is read, so that `position` is a place to which everything was looked at.
 */
export async function sweep(
  run: GcRun,
  end: number,
  nextWindow: (after: string) => Promise<{ last: string | null; candidates: string[] }>,
  remove: (batch: string[]) => Promise<void>,
): Promise<void> {
  for (let after = '0'; ;) {
    run.signal?.throwIfAborted()
    const { last, candidates } = await nextWindow(after)
    if (last === null) return
    const batches = batchesOf(candidates)
    const work = async () => {
      for (const batch of batches) {
        run.signal?.throwIfAborted()
        await remove(batch)
      }
    }
    // All of them have ended before a failure is told: nothing goes on behind the back of who asked.
    const outcomes = await Promise.allSettled(Array.from({ length: run.workers ?? 1 }, work))
    const failed = outcomes.find((outcome) => outcome.status === 'rejected')
    if (failed) throw failed.reason
    after = last
    run.onProgress?.({ position: Math.min(Number(last), end), end })
  }
}
