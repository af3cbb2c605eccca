import { fromJson, type JsonObject as ProtoJson, type MessageInitShape } from '@bufbuild/protobuf'
import { timestampNow } from '@bufbuild/protobuf/wkt'
import { bulkInverse, bulkNeeds, resolveSelector, type BulkKind, type Resolved, type Selector } from '@haven/artifacts'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import type { Permission } from '@haven/identity'
import { compileDoublestar, parseReference, parseRepositoryName, parseTag } from '@haven/oci'
import { findLabel, findLabels, type ProjectFacts } from '@haven/projects'
import type { BodyOf } from '@haven/proto'
import { ActorKind, OperationProgressedSchema } from '@haven/proto/events'
import { BulkOperationSchema, type BulkOperation } from '@haven/proto/jobs'
import {
  failedItems,
  getExecution,
  isFinal,
  listEffects,
  listExecutions,
  listFailures,
  recordFailures,
  startedUnder,
  startOnce,
  taskOf,
  tasksOf,
  type Execution,
  type JsonObject,
} from '@haven/queue'
import { requireProject, requireSignedIn } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { ok, type Answer } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseWholeQ } from '../lists/query.ts'
import { presentOperation, type OperationFacts } from '../present/operation.ts'
import { projectsOf, searchOf } from './inventory.ts'

/** A worker that dies leaves one artifact in doubt, and what is done already counts as done: trying again is safe. */
const JOB = { type: 'BULK_OPERATION', attempts: 10 }
/** Of one user or robot, so that nobody waits behind a hundred operations of somebody else. */
const MAX_UNFINISHED = 5
const BASE = '/api/haven/v1/operations'
const UNFINISHED: Execution['status'][] = ['Pending', 'Running', 'Stopping']

export const bulkHandlers: Handlers = {
  async startOperation({ body, headers, caller }, deps) {
    const once = onceUnder(headers['Idempotency-Key'], JSON.stringify(body))
    // Before anything is looked at: by now the artifacts may be gone.
    const before = await startedUnder(deps.db.writes, ownerOf(caller), once)
    if (before !== null) return ok(await shown(deps, await requireOwn(deps, caller, before)))

    const kind: BulkKind = body.kind
    const project = await projectNamed(deps, caller, bulkNeeds[kind].here, body.selector)
    const destination = kind === 'copy' ? await destinationOf(deps, caller, body, project) : null
    const labelId = kind === 'label' || kind === 'unlabel' ? await labelOf(deps, body, project) : 0
    const tag = tagOf(body)
    const selector = await selectorOf(deps, caller, body, project)
    const { total, unknown, ...resolved } = await resolveSelector(deps, selector)
    const names = unknown.map(({ path, reference }) => ({ repository: `${project!.name}/${path}`, reference }))
    return begin(deps, caller, once, {
      facts: { project: project?.name },
      params: {
        kind,
        dryRun: body.dryRun ?? false,
        projectId: BigInt(project?.id ?? 0),
        ...(project === null && { projectIds: 'among' in selector ? selector.among.map(({ id }) => BigInt(id)) : [] }),
        selection: storedSelection(resolved.selection, body.selector.search),
        total: total + unknown.length,
        unknown: unknown.length,
        labelId,
        tag,
        tags: kind === 'untag' && tag === '' ? tagsNamed(resolved.named) : {},
        ...(destination && { destination }),
      },
      unknown: names.map(({ repository, reference }) => {
        const named = reference.tag ?? reference.digest
        const problem = problems.manifestUnknown({ repository, reference: named })
        const item = `${repository}${reference.tag === undefined ? '@' : ':'}${named}`
        return { itemId: null, item, code: problem.kind.harbor, reason: 'gone', message: problem.message }
      }),
    })
  },

  async retryOperation({ path, headers, caller }, deps) {
    const before = await requireOwn(deps, caller, path.operation_id)
    const once = onceUnder(headers['Idempotency-Key'], `retry ${before.id}`)
    const started = await startedUnder(deps.db.writes, ownerOf(caller), once)
    if (started !== null) return ok(await shown(deps, await requireOwn(deps, caller, started)))
    requireOver(before)
    const { params, facts } = await askedFor(deps, caller, before)
    const artifacts = (await failedItems(deps.db, before.id)).map(BigInt)
    if (artifacts.length === 0) throw problems.conflict({ message: 'no artifact failed that could be tried again' })
    return begin(deps, caller, once, {
      facts: { ...facts, retries: before.id },
      params: { ...params, selection: { case: 'chosen', value: { artifacts } }, total: artifacts.length, unknown: 0 },
    })
  },

  async undoOperation({ path, caller }, deps) {
    const before = await requireOwn(deps, caller, path.operation_id)
    // No key of a client has a blank.
    const once = onceUnder(`undo ${before.id}`, `undo ${before.id}`)
    const started = await startedUnder(deps.db.writes, ownerOf(caller), once)
    if (started !== null) return ok(await shown(deps, await requireOwn(deps, caller, started)))
    const { undo, kind: done } = await shown(deps, before)
    const kind = bulkInverse[done]
    if (!undo.possible || !kind) throw problems.conflict({ message: `it cannot be undone: ${undo.reason}` })
    const { params, facts } = await askedFor(deps, caller, before, kind)
    const tagsOf = Map.groupBy(await listEffects(deps.db, before.id), ({ itemId }) => itemId)
    const tags = [...tagsOf].map(([id, all]) => [String(id), { names: all.map(({ detail }) => detail) }] as const)
    return begin(deps, caller, once, {
      facts: { ...facts, undoes: before.id },
      params: {
        ...params,
        kind,
        selection: { case: 'chosen', value: { artifacts: [...tagsOf.keys()].map(BigInt) } },
        total: tagsOf.size,
        unknown: 0,
        tag: '',
        tags: kind === 'tag' || kind === 'untag' ? Object.fromEntries(tags) : {},
      },
    })
  },

  async listOperations({ query, caller, at }, deps) {
    const { vendorType, vendorId } = ownerOf(caller)
    const { number, size } = pageOf(query)
    const filter = { vendorType, vendorId, ...(query.unfinished && { status: UNFINISHED }) }
    const { items, total } = await listExecutions(deps.db, filter, { page: number, pageSize: size })
    return listAnswer(at, query, total, await shownAll(deps, items))
  },

  async getOperation({ path, caller }, deps) {
    return ok(await shown(deps, await requireOwn(deps, caller, path.operation_id)))
  },

  async cancelOperation({ path, caller }, deps) {
    const { id } = await requireOwn(deps, caller, path.operation_id)
    await deps.queue.stopExecution(id)
    const operation = await shown(deps, await requireOwn(deps, caller, id))
    const { kind, state, total, done, failed } = operation
    const facts = { operation: BigInt(id), kind, state, total, done, failed, owner: ownerOf(caller).actor }
    await emit(deps.db.writes, OperationProgressedSchema, caller.source, facts)
    return ok(operation)
  },

  async listOperationFailures({ path, query, caller, at }, deps) {
    const { id } = await requireOwn(deps, caller, path.operation_id)
    const { number, size } = pageOf(query)
    const { items, total } = await listFailures(deps.db, id, { page: number, pageSize: size })
    return listAnswer(at, query, total, items)
  },
}

type Body = BodyOf<'startOperation'>
type Params = Partial<Exclude<MessageInitShape<typeof BulkOperationSchema>, BulkOperation>>
type Once = Parameters<typeof startOnce>[2]

type Plan = {
  params: Params & { kind: string; dryRun: boolean; total: number; unknown: number }
  facts: Pick<OperationFacts, 'project' | 'retries' | 'undoes'>
  /** Names of nothing. */
  unknown?: Parameters<typeof recordFailures>[2]
}

const onceUnder = (key: string | undefined, request: string): Once => ({
  key: key ?? null,
  request,
  atMost: MAX_UNFINISHED,
})

/** Starts it, unless its owner has started it already. */
async function begin(
  deps: CoreContext,
  caller: Caller,
  once: Once,
  { params, facts, unknown = [] }: Plan,
): Promise<Answer> {
  const { vendorType, vendorId, actor: owner } = ownerOf(caller)
  const task = taskOf(BulkOperationSchema, JOB, {
    ...params,
    askedAt: timestampNow(),
    owner,
    requestId: caller.source.requestId ?? '',
    sourceAddress: caller.source.address ?? '',
  })
  const { kind, dryRun, total } = params
  const parameters = { ...facts, kind, dryRun, total, unknown: params.unknown }
  const execution = { vendorType, vendorId, trigger: 'MANUAL' as const, parameters, actor: caller.name, tasks: [task] }
  const started = await deps.db.transaction(async (tx) => {
    const made = await startOnce(tx, execution, once)
    if (made.tasks.length > 0) await recordFailures(tx, made.id, unknown)
    return made
  })
  await deps.queue.kick(started.tasks)
  const operation = await shown(deps, await requireOwn(deps, caller, started.id))
  if (started.tasks.length === 0) return ok(operation)
  return { status: 201, headers: { Location: `${BASE}/${started.id}` }, body: operation }
}

function requireOver({ status }: Execution): void {
  if (!isFinal(status)) throw problems.conflict({ message: 'the operation is not over yet' })
}

/** What an operation was told to do, for one that does it, or another kind of thing, to some of its artifacts. @throws forbidden */
async function askedFor(deps: CoreContext, caller: Caller, { id, parameters }: Execution, kind?: BulkKind) {
  const [task] = await tasksOf(deps.db, [id])
  const params = fromJson(BulkOperationSchema, task!.parameters as ProtoJson, { ignoreUnknownFields: true })
  const { project } = parameters as OperationFacts
  const projectId = Number(params.projectId)
  if (projectId !== 0) {
    const needed = bulkNeeds[kind ?? (params.kind as BulkKind)].here
    await requireProject(deps, caller, needed, await deps.directory.byId(projectId), project ?? String(projectId))
  }
  const { $typeName: _, ...asked } = params
  return { params: asked, facts: { project } }
}

/** Whose operations: by id, since names change hands. */
function ownerOf({ principal }: Caller) {
  if (principal.kind !== 'user' && principal.kind !== 'robot') {
    throw principal.kind === 'anonymous' ? problems.unauthorized() : problems.forbidden({})
  }
  const { id, name, kind } = principal
  return {
    vendorType: kind === 'user' ? 'BULK_OPERATION' : 'ROBOT_BULK_OPERATION',
    vendorId: id,
    actor: { kind: kind === 'user' ? ActorKind.USER : ActorKind.ROBOT, id: BigInt(id), name },
  }
}

/** Those of others answer like none. */
async function requireOwn({ db }: CoreContext, caller: Caller, id: number): Promise<Execution> {
  const { vendorType, vendorId } = ownerOf(caller)
  const found = Number.isSafeInteger(id) ? await getExecution(db, id) : null
  if (found?.vendorType === vendorType && found.vendorId === vendorId) return found
  throw problems.notFound({ resource: 'operation', id })
}

async function shownAll({ db }: CoreContext, executions: readonly Execution[]) {
  const tasks = await tasksOf(
    db,
    executions.map(({ id }) => id),
  )
  const cursors = new Map(tasks.map((task) => [task.executionId, task.cursor]))
  return executions.map((execution) => presentOperation(execution, cursors.get(execution.id) ?? null))
}

const shown = async (deps: CoreContext, execution: Execution) => (await shownAll(deps, [execution]))[0]!

/** Null for a search through all projects. */
async function projectNamed(
  deps: CoreContext,
  caller: Caller,
  needed: Permission,
  { project: name, search }: { project?: string; search?: string },
): Promise<ProjectFacts | null> {
  // What is public may be read by anybody; to have work done for one, one has to be somebody.
  requireSignedIn(caller)
  if (name === undefined) {
    if (search === undefined) throw problems.badRequest({ message: 'a selector without search needs a project' })
    return null
  }
  const project = await deps.directory.byName(name)
  if (search !== undefined) await requireProject(deps, caller, { resource: 'artifact', action: 'list' }, project, name)
  return requireProject(deps, caller, needed, project, name)
}

async function destinationOf(
  deps: CoreContext,
  caller: Caller,
  { destination, selector }: Body,
  from: ProjectFacts | null,
) {
  if (!destination) throw problems.badRequest({ message: 'destination is missing: where copies go' })
  const to = (await projectNamed(deps, caller, bulkNeeds.copy.there!, destination))!
  if (to.registryId !== null) {
    throw problems.methodNotAllowed({ message: "the operation isn't supported for a proxy project" })
  }
  const repository = destination.repository ?? ''
  if (repository !== '' && parseRepositoryName(`${to.name}/${repository}`) === null) {
    throw problems.nameInvalid({ name: repository })
  }
  if (to.id === from?.id && (repository === '' || repository === selector.repository)) {
    throw problems.badRequest({ message: 'a copy needs another repository' })
  }
  return { projectId: BigInt(to.id), repository }
}

async function labelOf(deps: CoreContext, { label: id }: Body, project: ProjectFacts | null): Promise<number> {
  if (id === undefined) throw problems.badRequest({ message: 'label is missing: the id of one' })
  const label = await findLabel(deps, id)
  const usable = label && (label.projectId === 0 || label.projectId === project?.id)
  if (!usable) throw problems.notFound({ resource: 'label', id })
  return id
}

/** Empty where the references say it. @throws badRequest */
function tagOf({ kind, tag, selector }: Body): string {
  if (kind === 'tag') {
    if (tag !== undefined && parseTag(tag) !== null) return tag
    throw problems.badRequest({ message: tag === undefined ? 'tag is missing: the one to put on' : `no tag: ${tag}` })
  }
  if (kind !== 'untag') return ''
  if (tag === undefined || tag === '') {
    if (selector.references) return ''
    throw problems.badRequest({ message: 'tag is missing: which ones to take off' })
  }
  compileDoublestar(tag)
  return tag
}

/** @throws badRequest for a reference that can be none, and for two ways to choose at once. */
async function selectorOf(
  deps: CoreContext,
  caller: Caller,
  { kind, tag, selector }: Body,
  project: ProjectFacts | null,
): Promise<Selector> {
  const { references, repository: path, q, search } = selector
  const ways = [references, path ?? q, search].filter((way) => way !== undefined)
  if (ways.length > 1) {
    throw problems.badRequest({ message: 'a selector has either references, or repository and q, or search' })
  }
  if (search !== undefined) {
    const among = project ? [project] : await projectsOf(deps, caller, bulkNeeds[kind].here)
    const found = { among, ...(await searchOf(deps, search)) }
    await requireLabels(deps, found)
    return found
  }
  // Without a search there is a project.
  const place = { project: project! }
  if (!references) return { ...place, ...(path !== undefined && { path }), conditions: parseWholeQ(q) }
  return {
    ...place,
    named: references.map(({ repository, reference: text }) => {
      const reference = parseReference(text)
      if (!reference) throw problems.badRequest({ message: `invalid reference: ${text}` })
      if (kind === 'untag' && tag === undefined && reference.tag === undefined) {
        throw problems.badRequest({ message: `without tag, each reference is a tag to take off: ${text} is none` })
      }
      return { path: repository, reference }
    }),
  }
}

/** A label that there is not keeps nothing: `-label:kepe` would mean everything. @throws badRequest */
async function requireLabels(deps: CoreContext, { among, labels, terms }: Extract<Selector, { among: unknown }>) {
  const known = await findLabels(deps, [...labels.values()].flat())
  for (const term of terms) {
    if (term.field !== 'label') continue
    const projects = (labels.get(term.value) ?? []).map((id) => known.get(id)?.projectId)
    if (projects.some((id) => id === 0 || among.some((project) => project.id === id))) continue
    throw problems.badRequest({ message: `search: there is no label ${term.value}` })
  }
}

function storedSelection(
  selection: Resolved['selection'],
  search: string | undefined,
): NonNullable<Params['selection']> {
  if ('ids' in selection) return { case: 'chosen', value: { artifacts: selection.ids.map(BigInt) } }
  if ('conditions' in selection) {
    const { path: repository = '', conditions } = selection
    return { case: 'matching', value: { repository, conditions: conditions.map(asJson) } }
  }
  const labels = [...selection.labels].map(([name, ids]): [string, { ids: number[] }] => [name, { ids: [...ids] }])
  return { case: 'found', value: { search: search!, labels: Object.fromEntries(labels) } }
}

/** Of each artifact those of its tags by which it was named. */
function tagsNamed(named: Resolved['named']): Record<string, { names: string[] }> {
  const tagsOf = Map.groupBy(named, ({ id }) => String(id))
  const names = [...tagsOf].map(([id, all]) => [id, { names: all.map(({ reference }) => reference.tag!) }] as const)
  return Object.fromEntries(names)
}

const asJson = (condition: object) => JSON.parse(JSON.stringify(condition)) as JsonObject & Record<string, never>
