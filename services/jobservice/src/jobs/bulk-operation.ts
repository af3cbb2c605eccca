import { timestampDate } from '@bufbuild/protobuf/wkt'
import {
  copyArtifact,
  deleteManifest,
  grant,
  isBulkKind,
  bulkNeeds,
  labelArtifact,
  selectedArtifacts,
  unlabelArtifact,
  type RecordDeps,
  type BulkKind,
  type Right,
  type SelectedArtifact,
  type Selection,
} from '@haven/artifacts'
import type { Condition, Database, Sql } from '@haven/db'
import { isUnavailable, Problem, problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { decide, type Permission } from '@haven/identity'
import { parseRepositoryName, type Digest } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import { ActorKind, OperationProgressedSchema } from '@haven/proto/events'
import { BulkOperationSchema, type BulkOperation } from '@haven/proto/jobs'
import { LeaseLost, recordFailures, StopRequested, type ItemFailure, type JobRun } from '@haven/queue'
import { defineJob, type JobDeps } from '../job-deps.ts'

type Run = JobRun<BulkOperation, JobDeps>
type State = { below: number | null; done: number; failed: number; codes: Record<string, number> }

const begun = (unknown: number): State => ({
  below: null,
  done: unknown,
  failed: unknown,
  codes: unknown === 0 ? {} : { [problems.manifestUnknown.kind.harbor]: unknown },
})

/** How long an operation works before those of others come first. */
const TURN_MS = 3_000
/** How often listeners are told of it. */
const TELL_EVERY_MS = 1_000
/** Those of an operation that are told one by one; the others are only counted. */
const MAX_LISTED = 1_000

/**
 * Does one thing to many artifacts, one after the other, by the use cases that the API has for one. Where it is is saved after each, so that a worker
 * which dies leaves one in doubt at most; that one is looked at again, and what is done already counts as done.
 */
export default defineJob(BulkOperationSchema, {
  type: 'BULK_OPERATION',
  attempts: 10,
  concurrency: 0,
  async run(job) {
    const { params, deps, signal } = job
    const { kind, selection } = params
    if (!isBulkKind(kind)) throw new Error(`${kind} is no kind of operation`)
    const operation = new Operation(job, kind)
    const turnEnds = performance.now() + TURN_MS
    try {
      await operation.tell('Running')
      const project = await deps.projects.byId(Number(params.projectId))
      // Without its project there is nothing left to do anything to.
      if (project) {
        const askedAt = timestampDate(params.askedAt!)
        const { below } = operation.state
        for await (const item of selectedArtifacts(deps, project, selectionOf(selection), {
          pushedUntil: askedAt,
          below,
        })) {
          signal.throwIfAborted()
          await operation.take(item, project)
          if (performance.now() > turnEnds) job.yieldTurn()
        }
      }
    } catch (error) {
      if (signal.reason instanceof StopRequested) await operation.tell('Stopped')
      throw error
    }
    await deps.artifacts.recent.settled()
    await operation.tell('Success')
  },
})

function selectionOf(selection: BulkOperation['selection']): Selection {
  if (selection.case === 'chosen') return { ids: selection.value.artifacts.map(Number) }
  if (selection.case !== 'matching') throw new Error('an operation without a selection')
  const { repository, conditions } = selection.value
  return { ...(repository !== '' && { path: repository }), conditions: conditions as unknown as Condition[] }
}

class Operation {
  readonly #job: Run
  readonly #kind: BulkKind
  readonly #source: EventSource & { principal: Owner }
  readonly #artifacts: RecordDeps
  state: State
  /** Where it is once what it does now has succeeded. */
  #next: State | null = null
  #toldAt = -Infinity

  constructor(job: Run, kind: BulkKind) {
    const { params, deps } = job
    this.#job = job
    this.#kind = kind
    this.#source = { principal: ownerOf(params), requestId: params.requestId, address: params.sourceAddress }
    // Who asked is told once, at the end.
    const recent = { settled: async () => undefined }
    const hold = async (tx: Sql) => {
      await job.hold(tx)
      // A deletion is one transaction: counted in it, since what is gone is not found again after a crash.
      if (kind === 'delete' && this.#next) await job.saveCursor(this.#next, tx)
    }
    this.#artifacts = { ...deps.artifacts, db: held(deps.db, hold, params.dryRun), recent }
    this.state = (job.cursor as State | null) ?? begun(params.unknown)
  }

  async take(
    { id, artifact }: { id: number; artifact: SelectedArtifact | null },
    project: ProjectFacts,
  ): Promise<void> {
    const { done, failed, codes } = this.state
    this.#next = { below: id, done: done + 1, failed, codes }
    const failure = await this.#try(id, artifact, project)
    this.#next = null
    this.state = {
      below: id,
      done: done + 1,
      failed: failed + (failure ? 1 : 0),
      codes: failure ? { ...codes, [failure.code]: (codes[failure.code] ?? 0) + 1 } : codes,
    }
    const listed = failure && this.state.failed <= MAX_LISTED ? [failure] : []
    if (listed.length > 0 || performance.now() - this.#toldAt > TELL_EVERY_MS) await this.tell('Running', listed)
    else await this.#job.saveCursor(this.state)
  }

  /** Saves where it is, with what could not be done, and tells its owner. */
  async tell(state: 'Running' | 'Stopped' | 'Success', failures: readonly ItemFailure[] = []): Promise<void> {
    const { deps, params, executionId, hold, saveCursor } = this.#job
    const { done, failed } = this.state
    const due = state !== 'Running' || performance.now() - this.#toldAt > TELL_EVERY_MS
    await deps.db.transaction(async (tx) => {
      await hold(tx)
      await recordFailures(tx, executionId, failures)
      await saveCursor(this.state, tx)
      if (!due) return
      await emit(tx, OperationProgressedSchema, this.#source, {
        operation: BigInt(executionId),
        kind: params.kind,
        state,
        total: params.total,
        done,
        failed,
        ...(params.owner && { owner: params.owner }),
      })
    })
    if (due) this.#toldAt = performance.now()
  }

  /** @throws what is no answer about this one artifact: then the whole is tried again later, from here. */
  async #try(id: number, artifact: SelectedArtifact | null, project: ProjectFacts): Promise<ItemFailure | null> {
    const item = artifact ? `${project.name}/${artifact.path}@${artifact.digest}` : `artifact ${id}`
    try {
      await this.#apply(id, artifact, project)
      this.#job.log.debug(`${this.#kind}: ${item}`)
      return null
    } catch (error) {
      if (this.#job.signal.aborted || error instanceof LeaseLost || isUnavailable(error) || problems.readOnly.is(error))
        throw error
      if (!(error instanceof Problem)) this.#job.log.error(`${item}: ${String(error)}`)
      else if (error.status >= 500) throw error
      const problem = error instanceof Problem ? error : problems.internal()
      this.#job.log.warn(`${item}: ${problem.message}`)
      return { item, code: problem.kind.harbor, message: problem.message }
    }
  }

  async #apply(id: number, artifact: SelectedArtifact | null, project: ProjectFacts): Promise<void> {
    const { params } = this.#job
    const { here, there } = bulkNeeds[this.#kind]
    if (!artifact) {
      // What is gone is deleted, by whomever.
      if (this.#kind === 'delete') return
      throw problems.notFound({ resource: 'artifact', id })
    }
    const { path, digest } = artifact as SelectedArtifact & { digest: Digest }
    await this.#require(here, project, path)
    if (artifact.pushedAt > timestampDate(params.askedAt!)) {
      throw problems.conflict({ message: 'it was pushed again after the operation was asked for' })
    }
    const artifacts = this.#artifacts
    switch (this.#kind) {
      case 'delete':
        await deleteManifest(artifacts, this.#grant('delete', project, path), digest).catch(
          unless(problems.manifestUnknown, problems.nameUnknown),
        )
        return
      case 'label':
        await labelArtifact(artifacts, this.#grant('push', project, path), artifact, params.labelId).catch(
          unless(problems.conflict),
        )
        return
      case 'unlabel':
        await unlabelArtifact(artifacts, this.#grant('push', project, path), artifact, params.labelId).catch(
          unless(problems.notFound),
        )
        return
      case 'copy': {
        const to = await this.#destination(path)
        await this.#require(there!, to.project, to.path)
        if (params.dryRun) return
        const from = this.#grant('pull', project, path)
        const { signal } = this.#job
        await copyArtifact(artifacts, from, this.#grant('push', to.project, to.path), digest, { signal })
      }
    }
  }

  /** @throws projectNotFound, nameInvalid, methodNotAllowed */
  async #destination(from: string): Promise<{ project: ProjectFacts; path: string }> {
    const { projectId, repository } = this.#job.params.destination!
    const path = repository === '' ? from : repository
    const project = await this.#job.deps.projects.byId(Number(projectId))
    if (!project) throw problems.projectNotFound({ project: Number(projectId) })
    if (project.registryId !== null) {
      throw problems.methodNotAllowed({ message: "the operation isn't supported for a proxy project" })
    }
    if (parseRepositoryName(`${project.name}/${path}`) === null) throw problems.nameInvalid({ name: path })
    return { project, path }
  }

  /** As his rights are now. @throws forbidden */
  async #require({ resource, action }: Permission, project: ProjectFacts, repository: string): Promise<void> {
    const { principal } = this.#source
    const authority = await this.#job.deps.authorities.of(principal)
    if (decide(authority, { resource, action, on: { project, repository } }).allowed) return
    throw problems.forbidden({
      message: `${principal.name} may not ${action} ${resource} in ${project.name}/${repository}`,
    })
  }

  #grant<R extends Right>(right: R, project: ProjectFacts, repository: string) {
    const { principal, requestId = '', address } = this.#source
    return grant(right, { project, repository, principal, requestId, address, door: 'api' })
  }
}

type Owner = Extract<EventSource['principal'], { kind: 'user' | 'robot' }> & { projectId: null }

function ownerOf({ owner }: BulkOperation): Owner {
  if (!owner) throw new Error('an operation of nobody')
  const kind = owner.kind === ActorKind.ROBOT ? 'robot' : 'user'
  return { kind, id: Number(owner.id), name: owner.name, projectId: null }
}

/** What it says is done already. */
const unless =
  (...done: readonly { is(error: unknown): boolean }[]) =>
  (error: unknown) => {
    if (!done.some((one) => one.is(error))) throw error
  }

class Rehearsed extends Error {}

/**
 * The database as seen by one who works under a lease: a transaction of a worker that was given up has no effect. A rehearsal
 * does everything and takes it back.
 */
function held(db: Database, hold: (tx: Sql) => Promise<void>, rehearse: boolean): Database {
  const transaction = async <T>(work: (tx: Sql) => Promise<T>): Promise<T> => {
    let result: { value: T } | null = null
    try {
      return await db.transaction(async (tx) => {
        await hold(tx)
        const value = await work(tx)
        if (!rehearse) return value
        result = { value }
        throw new Rehearsed()
      })
    } catch (error) {
      if (!(error instanceof Rehearsed)) throw error
      return result!.value
    }
  }
  // Everything else is the database's own.
  return Object.create(db, { transaction: { value: transaction } }) as Database
}
