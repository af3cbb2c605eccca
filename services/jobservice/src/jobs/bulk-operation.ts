import { timestampDate } from '@bufbuild/protobuf/wkt'
import {
  addTag,
  bulkNeeds,
  copyArtifact,
  deleteManifest,
  deleteTag,
  grant,
  isBulkKind,
  judgeDeletions,
  labelArtifact,
  MAX_KEPT_CHANGES,
  parseSearch,
  resolveSelector,
  selectedArtifacts,
  tagsOfManifests,
  unlabelArtifact,
  type BulkKind,
  type DeleteGrant,
  type RecordDeps,
  type Right,
  type SelectedArtifact,
  type Selection,
} from '@haven/artifacts'
import type { Condition, Database, Sql } from '@haven/db'
import { isUnavailable, Problem, problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { decide, type Permission } from '@haven/identity'
import { compileDoublestar, parseRepositoryName, parseTag, type Digest, type Tag } from '@haven/oci'
import { projectNodes, type ProjectFacts } from '@haven/projects'
import { ActorKind, OperationProgressedSchema } from '@haven/proto/events'
import { BulkOperationSchema, type BulkOperation } from '@haven/proto/jobs'
import { LeaseLost, recordEffect, recordFailures, StopRequested, type ItemFailure, type JobRun } from '@haven/queue'
import { defineJob, type JobDeps } from '../job-deps.ts'

type Run = JobRun<BulkOperation, JobDeps>
/** What is saved after each artifact, and shown by core (`present/operation.ts`). */
type State = {
  below: number | null
  done: number
  failed: number
  /** How many failed, by code and reason with a blank between them. */
  codes: Record<string, number>
  /** Changes that an undo would take back. */
  effects: number
  /** Of a dry run. */
  sample: string[]
}
type Artifact = SelectedArtifact & { digest: Digest }
/** Null for what is no longer there. */
type Selected = { id: number; artifact: SelectedArtifact | null }
type Found = { artifact: Artifact; project: ProjectFacts }
type Failure = ItemFailure & { itemId: number }

const begun = (unknown: number): State => ({
  below: null,
  done: unknown,
  failed: unknown,
  codes: unknown === 0 ? {} : { [`${problems.manifestUnknown.kind.harbor} gone`]: unknown },
  effects: 0,
  sample: [],
})

/** How long an operation works before those of others come first. */
const TURN_MS = 3_000
/** How often listeners are told of it. */
const TELL_EVERY_MS = 1_000
/** Those of an operation that are told one by one; the others are only counted. */
const MAX_LISTED = 10_000
const MAX_SAMPLE = 10
/** Deletions of a dry run that are judged together. */
const JUDGED_TOGETHER = 100

/**
 * Does one thing to many artifacts, one after the other, by the use cases that the API has for one. Where it is is saved once for each: with the
 * change where that is one transaction, else after it, so that a worker which dies leaves one in doubt at most; that one is looked at again, and
 * what is done already counts as done. A dry run of deletions judges a hundred at a time.
 */
export default defineJob(BulkOperationSchema, {
  type: 'BULK_OPERATION',
  attempts: 10,
  concurrency: 0,
  async run(job) {
    const { params, deps, signal } = job
    const { kind } = params
    if (!isBulkKind(kind)) throw new Error(`${kind} is no kind of operation`)
    const operation = new Operation(job, kind)
    const turnEnds = performance.now() + TURN_MS
    try {
      await operation.tell('Running')
      const selection = await selectionOf(job)
      // Without its projects there is nothing left to do anything to.
      if (selection) {
        const pushedUntil = timestampDate(params.askedAt!)
        const { below } = operation.state
        const selected = selectedArtifacts(deps, selection, { pushedUntil, below })
        const judged = kind === 'delete' && params.dryRun
        for await (const some of inSets(selected, judged ? JUDGED_TOGETHER : 1)) {
          signal.throwIfAborted()
          await (judged ? operation.judge(some) : operation.take(some[0]!))
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

async function* inSets(all: AsyncIterable<Selected>, size: number): AsyncGenerator<Selected[]> {
  let set: Selected[] = []
  for await (const one of all) {
    set.push(one)
    if (set.length < size) continue
    yield set
    set = []
  }
  if (set.length > 0) yield set
}

/** Null when its projects are gone. */
async function selectionOf({ params, deps }: Run): Promise<Selection | null> {
  const { selection, projectId, projectIds, askedAt } = params
  const wanted = projectId === 0n ? projectIds.map(Number) : [Number(projectId)]
  const among = [...(await projectNodes(deps.db.writes, wanted)).values()]
  const [project] = among
  if (!project) return null
  switch (selection.case) {
    case 'chosen':
      return { projectIds: among.map(({ id }) => id), ids: selection.value.artifacts.map(Number) }
    case 'matching': {
      const { repository, conditions } = selection.value
      return {
        project,
        ...(repository !== '' && { path: repository }),
        conditions: conditions as unknown as Condition[],
      }
    }
    case 'found': {
      const { search, labels } = selection.value
      const idsOf = new Map(Object.entries(labels).map(([name, { ids }]) => [name, ids]))
      return { among, terms: parseSearch(search, timestampDate(askedAt!)), labels: idsOf }
    }
    default:
      throw new Error('an operation without a selection')
  }
}

/** What the next transaction of a use case means to the operation. */
type Step = {
  id: number
  /** With it the artifact is done. */
  last: boolean
  /** What an undo must know of it; null: nothing takes it back. */
  effect: string | null
}

class Operation {
  readonly #job: Run
  readonly #kind: BulkKind
  readonly #source: EventSource & { principal: Owner }
  readonly #artifacts: RecordDeps
  state: State
  /** Whether the database has it. */
  #saved: boolean
  #step: Step | null = null
  #toldAt = -Infinity

  constructor(job: Run, kind: BulkKind) {
    const { params, deps } = job
    this.#job = job
    this.#kind = kind
    this.#source = { principal: ownerOf(params), requestId: params.requestId, address: params.sourceAddress }
    // Who asked is told once, at the end.
    const recent = { settled: async () => undefined, settledWith: () => async () => undefined }
    const db = params.dryRun ? rehearsed(deps.db, job.hold) : this.#held(deps.db)
    this.#artifacts = { ...deps.artifacts, db, recent }
    this.state = { ...begun(params.unknown), ...(job.cursor as Partial<State> | null) }
    this.#saved = job.cursor !== null
  }

  async take(selected: Selected): Promise<void> {
    const { id } = selected
    const { item, found } = await this.#placeOf(selected)
    const failure = await this.#try(id, item, () => this.#apply(id, found))
    this.#count(id, item, failure)
    await this.#saveWith(failure && this.state.failed <= MAX_LISTED ? [failure] : [])
  }

  /** Whether each would be deleted: `take` of a dry run, for many at once. */
  async judge(some: readonly Selected[]): Promise<void> {
    const failures = new Map<number, Failure>()
    const refuse = async (id: number, item: string, work: () => Promise<void>) => {
      const failure = await this.#try(id, item, work)
      if (failure) failures.set(id, failure)
      return failure !== null
    }
    const places: { id: number; item: string }[] = []
    const asked: { id: number; item: string; grant: DeleteGrant; digest: Digest }[] = []
    for (const selected of some) {
      const { id } = selected
      const { item, found } = await this.#placeOf(selected)
      places.push({ id, item })
      if (!found || (await refuse(id, item, () => this.#admit(found)))) continue
      const { artifact, project } = found
      asked.push({ id, item, grant: this.#grant('delete', project, artifact.path), digest: artifact.digest })
    }
    const verdicts = await judgeDeletions(this.#artifacts, asked)
    for (const [i, { id, item }] of asked.entries()) {
      const verdict = verdicts[i]
      // What is gone is deleted, by whomever.
      if (verdict && !problems.manifestUnknown.is(verdict)) await refuse(id, item, () => Promise.reject(verdict))
    }
    const listed: Failure[] = []
    for (const { id, item } of places) {
      const failure = failures.get(id) ?? null
      this.#count(id, item, failure)
      if (failure && this.state.failed <= MAX_LISTED) listed.push(failure)
    }
    await this.#saveWith(listed)
  }

  /** How it is called, and null for what is no longer there. */
  async #placeOf({ id, artifact }: Selected): Promise<{ item: string; found: Found | null }> {
    const project = artifact && (await this.#job.deps.projects.byId(artifact.projectId))
    if (!project) return { item: `artifact ${id}`, found: null }
    const item = `${project.name}/${artifact.path}@${artifact.digest}`
    return { item, found: { artifact: artifact as Artifact, project } }
  }

  #count(id: number, item: string, failure: Failure | null) {
    const { done, failed, codes, sample } = this.state
    if (failure) {
      const counted = `${failure.code} ${failure.reason}`
      const count = (codes[counted] ?? 0) + 1
      this.#become({ below: id, done: done + 1, failed: failed + 1, codes: { ...codes, [counted]: count } })
    } else if (this.state.below !== id) {
      const shown = this.#job.params.dryRun && sample.length < MAX_SAMPLE
      this.#become({ below: id, done: done + 1, ...(shown && { sample: [...sample, item] }) })
    }
  }

  async #saveWith(failures: readonly Failure[]): Promise<void> {
    if (failures.length > 0 || this.#isDue()) await this.tell('Running', failures)
    else await this.#save()
  }

  #become(change: Partial<State>) {
    this.state = { ...this.state, ...change }
    this.#saved = false
  }

  async #save(tx?: Sql): Promise<void> {
    if (!this.#saved) await this.#job.saveCursor(this.state, tx)
    this.#saved = true
  }

  #isDue = () => performance.now() - this.#toldAt > TELL_EVERY_MS

  /** Saves where it is, with what could not be done, and tells its owner. */
  async tell(state: 'Running' | 'Stopped' | 'Success', failures: readonly Failure[] = []): Promise<void> {
    const { deps, params, executionId, hold } = this.#job
    const { done, failed } = this.state
    const due = state !== 'Running' || this.#isDue()
    await deps.db.transaction(async (tx) => {
      await hold(tx)
      await recordFailures(tx, executionId, failures)
      await this.#save(tx)
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

  /**
   * The database as seen by one who works under a lease: a transaction of a worker that was given up has no effect. One that is a step takes
   * with it where the operation is then, and what it changed.
   */
  #held(db: Database): Database {
    const { hold, saveCursor, executionId } = this.#job
    return transactionsOf(db, async (work) => {
      const step = this.#step
      let state: State | null = null
      const value = await db.transaction(async (tx) => {
        await hold(tx)
        const result = await work(tx)
        if (!step) return result
        const { done, effects } = this.state
        state = {
          ...this.state,
          ...(step.last && { below: step.id, done: done + 1 }),
          ...(step.effect !== null && { effects: effects + 1 }),
        }
        if (step.effect !== null && effects < MAX_KEPT_CHANGES) {
          await recordEffect(tx, executionId, { itemId: step.id, detail: step.effect })
        }
        await saveCursor(state, tx)
        return result
      })
      this.state = state ?? this.state
      return value
    })
  }

  /** @throws what is no answer about this one artifact: then the whole is tried again later, from here. */
  async #try(id: number, item: string, work: () => Promise<void>): Promise<Failure | null> {
    try {
      await work()
      this.#job.log.debug(`${this.#kind}: ${item}`)
      return null
    } catch (error) {
      if (this.#job.signal.aborted || error instanceof LeaseLost || isUnavailable(error) || problems.readOnly.is(error))
        throw error
      if (!(error instanceof Problem)) this.#job.log.error(`${item}: ${String(error)}`)
      else if (error.status >= 500) throw error
      const problem = error instanceof Problem ? error : problems.internal()
      this.#job.log.warn(`${item}: ${problem.message}`)
      return { itemId: id, item, code: problem.kind.harbor, reason: reasonOf(problem), message: problem.message }
    } finally {
      this.#step = null
    }
  }

  /** @throws forbidden; conflict for what is another than was meant. */
  async #admit({ artifact, project }: Found): Promise<void> {
    await this.#require(bulkNeeds[this.#kind].here, project, artifact.path)
    if (artifact.pushedAt > timestampDate(this.#job.params.askedAt!)) {
      throw problems.conflict({ message: 'it was pushed again after the operation was asked for' })
    }
  }

  async #apply(id: number, found: Found | null): Promise<void> {
    const { params } = this.#job
    if (!found) {
      // What is gone is deleted, by whomever.
      if (this.#kind === 'delete') return
      throw problems.notFound({ resource: 'artifact', id })
    }
    const { artifact, project } = found
    const { path, digest } = artifact
    await this.#admit(found)
    const artifacts = this.#artifacts
    switch (this.#kind) {
      case 'delete':
        this.#step = { id, last: true, effect: null }
        await deleteManifest(artifacts, this.#grant('delete', project, path), digest).catch(
          unless(problems.manifestUnknown, problems.nameUnknown),
        )
        return
      case 'label':
        this.#step = { id, last: true, effect: '' }
        await labelArtifact(artifacts, this.#grant('push', project, path), artifact, params.labelId).catch(
          unless(problems.conflict),
        )
        return
      case 'unlabel':
        this.#step = { id, last: true, effect: '' }
        await unlabelArtifact(artifacts, this.#grant('push', project, path), artifact, params.labelId).catch(
          unless(problems.notFound),
        )
        return
      case 'tag': {
        requireOwnContent(project)
        const to = this.#grant('push', project, path)
        await this.#eachTag(id, params.tags[String(id)]?.names ?? [params.tag], async (tag) => {
          await addTag(artifacts, to, artifact, tag).catch(async (error: unknown) => {
            if (!problems.conflict.is(error)) throw error
            const { named } = await resolveSelector(artifacts, { project, named: [{ path, reference: { tag } }] })
            if (named[0]?.id !== id) throw error
          })
        })
        return
      }
      case 'untag': {
        const from = this.#grant('delete', project, path)
        await this.#eachTag(id, await this.#unwantedTags(id), async (tag) => {
          const gone = unless(problems.notFound, problems.manifestUnknown, problems.nameUnknown)
          await deleteTag(artifacts, from, tag, { of: id }).catch(gone)
        })
        return
      }
      case 'copy': {
        const to = await this.#destination(path)
        await this.#require(bulkNeeds.copy.there!, to.project, to.path)
        if (to.project.id === project.id && to.path === path) {
          throw problems.badRequest({ message: 'a copy needs another repository' })
        }
        if (params.dryRun) return
        const from = this.#grant('pull', project, path)
        const { signal } = this.#job
        await copyArtifact(artifacts, from, this.#grant('push', to.project, to.path), digest, { signal })
      }
    }
  }

  /** A transaction for each: one tag that has to stay as it is does not keep the others. @throws why the first one has to. */
  async #eachTag(id: number, tags: readonly string[], change: (tag: Tag) => Promise<void>): Promise<void> {
    let refusal: unknown = null
    for (const [i, name] of tags.entries()) {
      const tag = parseTag(name)
      if (tag === null) throw problems.tagInvalid({ tag: name })
      this.#step = { id, last: refusal === null && i === tags.length - 1, effect: tag }
      try {
        await change(tag)
      } catch (error) {
        if (!problems.tagUndeletable.is(error) && !problems.conflict.is(error)) throw error
        refusal ??= error
      }
    }
    if (refusal !== null) throw refusal
  }

  async #unwantedTags(id: number): Promise<string[]> {
    const { params, deps } = this.#job
    const chosen = params.tags[String(id)]
    if (chosen) return chosen.names
    const isUnwanted = compileDoublestar(params.tag)
    const tags = await tagsOfManifests(deps.db.writes, [String(id)])
    return tags.map(({ name }) => name).filter(isUnwanted)
  }

  /** @throws projectNotFound, nameInvalid, methodNotAllowed */
  async #destination(from: string): Promise<{ project: ProjectFacts; path: string }> {
    const { projectId, repository } = this.#job.params.destination!
    const path = repository === '' ? from : repository
    const project = await this.#job.deps.projects.byId(Number(projectId))
    if (!project) throw problems.projectNotFound({ project: Number(projectId) })
    requireOwnContent(project)
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

function requireOwnContent({ registryId }: ProjectFacts): void {
  if (registryId === null) return
  throw problems.methodNotAllowed({ message: "the operation isn't supported for a proxy project" })
}

const reasons: readonly [string, readonly { is(error: unknown): boolean }[]][] = [
  ['immutable', [problems.tagImmutable, problems.tagUndeletable]],
  ['forbidden', [problems.forbidden]],
  ['quota', [problems.quotaExceeded]],
  ['gone', [problems.notFound, problems.manifestUnknown, problems.nameUnknown, problems.projectNotFound]],
  ['referenced', [problems.stillReferenced]],
  ['changed', [problems.conflict]],
]
const reasonOf = (problem: Problem): string =>
  reasons.find(([, kinds]) => kinds.some((kind) => kind.is(problem)))?.[0] ?? 'other'

/** What it says is done already. */
const unless =
  (...done: readonly { is(error: unknown): boolean }[]) =>
  (error: unknown) => {
    if (!done.some((one) => one.is(error))) throw error
  }

type Transaction = <T>(work: (tx: Sql) => Promise<T>) => Promise<T>

/** The database with other transactions; everything else is its own. */
const transactionsOf = (db: Database, transaction: Transaction): Database =>
  Object.create(db, { transaction: { value: transaction } }) as Database

class Rehearsed extends Error {}

/** A database in which everything is done and taken back. */
const rehearsed = (db: Database, hold: (tx: Sql) => Promise<void>): Database =>
  transactionsOf(db, async <T>(work: (tx: Sql) => Promise<T>): Promise<T> => {
    let result: { value: T } | null = null
    try {
      return await db.transaction(async (tx) => {
        await hold(tx)
        result = { value: await work(tx) }
        throw new Rehearsed()
      })
    } catch (error) {
      if (!(error instanceof Rehearsed)) throw error
      return result!.value
    }
  })
