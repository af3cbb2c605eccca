import { expireUploads } from '@haven/artifacts'
import {
  buryUntagged,
  estimateGarbage,
  forgetBlobs,
  purgeTombstones,
  removedBy,
  unlinkBlobs,
  type GcRun,
} from '@haven/artifacts/gc'
import { emit } from '@haven/events'
import { GarbageCollectedSchema } from '@haven/proto/events'
import { GarbageCollectionSchema, type GarbageCollection } from '@haven/proto/jobs'
import { getExecution, type JobRun } from '@haven/queue'
import { defineJob, type JobDeps } from '../job-deps.ts'

const MAX_WORKERS = 10

type Run = JobRun<GarbageCollection, JobDeps>

/**
 * Collects garbage while everything serves (architecture.md §8): bury, purge, unlink, forget, sweep, and have registryctl erase.
 * Each step removes in small transactions and may be repeated, so an attempt that died is simply followed by the next.
 */
export default defineJob(GarbageCollectionSchema, {
  type: 'GARBAGE_COLLECTION',
  attempts: 3,
  concurrency: 1,
  scheduled: (parameters) => ({
    deleteUntagged: parameters.delete_untagged === true,
    deleteTag: parameters.delete_tag === true,
    dryRun: parameters.dry_run === true,
    workers: Number(parameters.workers ?? 1),
    timeWindowSeconds: Number(parameters.time_window ?? 0) * 3600,
  }),
  async run(job) {
    const { params, deps, log } = job
    const workers = Math.min(params.workers || 1, MAX_WORKERS)
    const graceSeconds = params.timeWindowSeconds || deps.gc.settings.promiseSeconds
    log.info(`garbage collection${params.dryRun ? ' (dry run)' : ''} begins, attempt ${job.attempt}`)
    log.info(`workers: ${workers}`)
    await job.attributes({ time_window: graceSeconds / 3600 })
    // Before anything is removed: what is forgotten and cannot be erased would free nothing.
    await deps.registryControl.statistics({}, { signal: job.signal, timeoutMs: 10_000 })
    const run = {
      executionId: job.executionId,
      actor: 'garbage collection',
      graceSeconds,
      workers,
      signal: job.signal,
      hold: job.hold,
    }
    if (params.dryRun) await estimate(job, run)
    else await collect(job, run, workers)
  },
})

async function estimate(job: Run, run: GcRun): Promise<void> {
  const { deps, params, log } = job
  const { manifests, blobs } = await estimateGarbage(deps.gc, run, { untagged: params.deleteUntagged })
  const bytes = manifests.bytes + blobs.bytes
  log.info(`would delete ${manifests.count} manifests and ${blobs.count} blobs, and free ${bytes} bytes`)
  await job.attributes({ freed_space: bytes, purged_blobs: blobs.count, purged_manifests: manifests.count })
  job.progress({ phase: 'estimated', percent: 100, manifests: manifests.count, blobs: blobs.count, freed_bytes: bytes })
}

async function collect(job: Run, run: GcRun, workers: number): Promise<void> {
  const { deps, params, log } = job
  const progress = new Progress(job)
  const during = (phase: Phase): GcRun => ({ ...run, onProgress: progress.enter(phase) })
  let succeeded = false
  try {
    if (params.deleteUntagged) {
      const buried = await buryUntagged(deps.gc, during('untagged'), ({ repository, digest }) =>
        log.info(`delete untagged artifact: ${repository}@${digest}`),
      )
      log.info(`${buried} untagged artifacts deleted`)
    }
    await purgeTombstones(deps.gc, during('manifests'), ({ repository, digest, bytes }) => {
      log.info(`delete manifest of ${repository}`)
      log.info(`delete blob from storage: ${digest}`)
      progress.count('manifests', bytes)
    })
    const unlinked = await unlinkBlobs(deps.gc, during('links'))
    log.info(`${unlinked} blobs taken away from repositories that do not need them`)
    await forgetBlobs(deps.gc, during('blobs'), ({ digest, bytes }) => {
      log.info(`delete blob from storage: ${digest}`)
      progress.count('blobs', bytes)
    })
    progress.enter('uploads')
    const uploads = await expireUploads(deps, deps.uploadExpirySeconds, job.signal)
    if (uploads > 0) log.info(`${uploads} abandoned uploads ended`)
    progress.enter('erase')
    await erase(job, workers)
    succeeded = true
  } finally {
    await report(job, succeeded)
  }
}

/** Has the trash erased that is due. What was forgotten just now follows when its time is over (housekeeping asks for it). */
async function erase(job: Run, workers: number): Promise<void> {
  const { deps, log, signal, executionId } = job
  const sum = { erased: 0, bytes: 0, failed: 0, waiting: 0, held: false }
  for await (const answer of deps.registryControl.erase({ execution: BigInt(executionId), workers }, { signal })) {
    sum.erased = Number(answer.erased)
    sum.bytes = Number(answer.erasedBytes)
    sum.failed = Number(answer.failed)
    sum.waiting = Number(answer.skipped)
    sum.held = answer.held
    for (const { key, reason } of answer.failures)
      log.warn(`object ${key} was not erased and is tried again: ${reason}`)
  }
  log.info(`${sum.erased} objects erased (${sum.bytes} bytes), ${sum.waiting} wait until no download can need them`)
  if (sum.held) log.warn('a backup is being taken: objects are erased after its end')
  if (sum.failed > 0) log.warn(`${sum.failed} objects could not be erased`)
  await job.attributes({ erased_objects: sum.erased, erased_space: sum.bytes, erase_failed: sum.failed })
}

/** What all attempts of this run removed, from the record. Also told of one that failed or was stopped half way. */
async function report(job: Run, succeeded: boolean): Promise<void> {
  const { deps, executionId, log } = job
  const execution = (await getExecution(deps.db, executionId))!
  const { blob, manifest } = await removedBy(deps.gc, executionId, execution.createdAt)
  const bytes = blob.bytes + manifest.bytes
  log.info(`${manifest.count} manifests and ${blob.count} blobs deleted, ${bytes} bytes freed`)
  await job.attributes({ freed_space: bytes, purged_blobs: blob.count, purged_manifests: manifest.count })
  await deps.db.transaction(async (tx) => {
    await job.hold(tx)
    await emit(
      tx,
      GarbageCollectedSchema,
      { principal: { kind: 'service', name: 'jobservice' } },
      {
        execution: BigInt(executionId),
        succeeded,
        blobs: BigInt(blob.count),
        manifests: BigInt(manifest.count),
        freedBytes: BigInt(bytes),
      },
    )
  })
}

const phases = ['untagged', 'manifests', 'links', 'blobs', 'uploads', 'erase'] as const
type Phase = (typeof phases)[number]

/** How far the run is, as the portal shows it. */
class Progress {
  readonly #job: Run
  readonly #startedAt = performance.now()
  #phase: Phase = 'untagged'
  #share = 0
  readonly #counts = { manifests: 0, blobs: 0, bytes: 0 }

  constructor(job: Run) {
    this.#job = job
  }

  enter(phase: Phase): NonNullable<GcRun['onProgress']> {
    this.#phase = phase
    this.#share = 0
    this.#show()
    return ({ position, end }) => {
      this.#share = end === 0 ? 1 : position / end
      this.#show()
    }
  }

  count(kind: 'manifests' | 'blobs', bytes: number): void {
    this.#counts[kind]++
    this.#counts.bytes += bytes
  }

  #show() {
    const done = (phases.indexOf(this.#phase) + this.#share) / phases.length
    const elapsedSeconds = (performance.now() - this.#startedAt) / 1000
    this.#job.progress({
      phase: this.#phase,
      percent: Math.round(done * 100),
      manifests: this.#counts.manifests,
      blobs: this.#counts.blobs,
      freed_bytes: this.#counts.bytes,
      eta_seconds: done < 0.02 ? null : Math.round((elapsedSeconds / done) * (1 - done)),
    })
  }
}
