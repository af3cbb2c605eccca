import { timestampNow } from '@bufbuild/protobuf/wkt'
import { bulkNeeds, resolveSelector, type BulkKind, type Selector } from '@haven/artifacts'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { parseReference, parseRepositoryName } from '@haven/oci'
import { findLabel, type ProjectFacts } from '@haven/projects'
import type { BodyOf } from '@haven/proto'
import { ActorKind, OperationProgressedSchema } from '@haven/proto/events'
import { BulkOperationSchema } from '@haven/proto/jobs'
import {
  getExecution,
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
import { ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ } from '../lists/query.ts'
import { presentOperation } from '../present/operation.ts'

/** A worker that dies leaves one artifact in doubt, and what is done already counts as done: trying again is safe. */
const JOB = { type: 'BULK_OPERATION', attempts: 10 }
/** Of one user or robot, so that nobody waits behind a hundred operations of somebody else. */
const MAX_UNFINISHED = 5
const BASE = '/api/haven/v1/operations'
const UNFINISHED: Execution['status'][] = ['Pending', 'Running', 'Stopping']

export const bulkHandlers: Handlers = {
  async startOperation({ body, headers, caller }, deps) {
    const owner = ownerOf(caller)
    const key = headers['Idempotency-Key'] ?? null
    const once = { key, request: JSON.stringify(body), atMost: MAX_UNFINISHED }
    // Before anything is looked at: by now the artifacts may be gone.
    const before = await startedUnder(deps.db.writes, owner, once)
    if (before !== null) return ok(await shown(deps, await requireOwn(deps, caller, before)))

    const kind: BulkKind = body.kind
    const needs = bulkNeeds[kind]
    const project = await projectNamed(deps, caller, needs.here, body.selector.project)
    const destination = kind === 'copy' ? await destinationOf(deps, caller, body, project) : null
    const label = kind === 'label' || kind === 'unlabel' ? await labelOf(deps, body, project) : 0
    const { selection, total, unknown } = await resolveSelector(deps, project, selectorOf(body.selector))

    const task = taskOf(BulkOperationSchema, JOB, {
      kind,
      dryRun: body.dryRun ?? false,
      projectId: BigInt(project.id),
      selection:
        'ids' in selection
          ? { case: 'chosen', value: { artifacts: selection.ids.map(BigInt) } }
          : {
              case: 'matching',
              value: { repository: selection.path ?? '', conditions: selection.conditions.map(asJson) },
            },
      askedAt: timestampNow(),
      total: total + unknown.length,
      unknown: unknown.length,
      labelId: label,
      ...(destination && { destination }),
      owner: owner.actor,
      requestId: caller.source.requestId ?? '',
      sourceAddress: caller.source.address ?? '',
    })
    const started = await deps.db.transaction(async (tx) => {
      const { vendorType, vendorId } = owner
      const parameters = {
        kind,
        dryRun: body.dryRun ?? false,
        project: project.name,
        total: total + unknown.length,
        unknown: unknown.length,
      }
      const execution = {
        vendorType,
        vendorId,
        trigger: 'MANUAL' as const,
        parameters,
        actor: caller.name,
        tasks: [task],
      }
      const made = await startOnce(tx, execution, once)
      if (made.tasks.length === 0) return made
      const failures = unknown.map(({ path, reference }) => {
        const named = reference.tag ?? reference.digest
        const problem = problems.manifestUnknown({ repository: `${project.name}/${path}`, reference: named })
        const item = `${project.name}/${path}${reference.tag === undefined ? '@' : ':'}${named}`
        return { item, code: problem.kind.harbor, message: problem.message }
      })
      await recordFailures(tx, made.id, failures)
      return made
    })
    await deps.queue.kick(started.tasks)
    const operation = await shown(deps, await requireOwn(deps, caller, started.id))
    if (started.tasks.length === 0) return ok(operation)
    return { status: 201, headers: { Location: `${BASE}/${started.id}` }, body: operation }
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

type Needed = { resource: string; action: string }

async function projectNamed(deps: CoreContext, caller: Caller, needed: Needed, name: string): Promise<ProjectFacts> {
  // What is public may be read by anybody; to have work done for one, one has to be somebody.
  requireSignedIn(caller)
  return requireProject(deps, caller, needed, await deps.directory.byName(name), name)
}

async function destinationOf(deps: CoreContext, caller: Caller, { destination, selector }: Body, from: ProjectFacts) {
  if (!destination) throw problems.badRequest({ message: 'destination is missing: where copies go' })
  const to = await projectNamed(deps, caller, bulkNeeds.copy.there!, destination.project)
  if (to.registryId !== null) {
    throw problems.methodNotAllowed({ message: "the operation isn't supported for a proxy project" })
  }
  const repository = destination.repository ?? ''
  if (repository !== '' && parseRepositoryName(`${to.name}/${repository}`) === null) {
    throw problems.nameInvalid({ name: repository })
  }
  if (to.id === from.id && (repository === '' || repository === selector.repository)) {
    throw problems.badRequest({ message: 'a copy needs another repository' })
  }
  return { projectId: BigInt(to.id), repository }
}

async function labelOf(deps: CoreContext, { label: id }: Body, project: ProjectFacts): Promise<number> {
  if (id === undefined) throw problems.badRequest({ message: 'label is missing: the id of one' })
  const label = await findLabel(deps, id)
  const usable = label && (label.projectId === 0 || label.projectId === project.id)
  if (!usable) throw problems.notFound({ resource: 'label', id })
  return id
}

/** @throws badRequest for a reference that can be none, and for both ways to choose at once. */
function selectorOf({ references, repository: path, q }: Body['selector']): Selector {
  if (!references) return { ...(path !== undefined && { path }), conditions: parseQ(q) }
  if (path !== undefined || q !== undefined) {
    throw problems.badRequest({ message: 'a selector has either references, or repository and q' })
  }
  return {
    named: references.map(({ repository, reference: text }) => {
      const reference = parseReference(text)
      if (!reference) throw problems.badRequest({ message: `invalid reference: ${text}` })
      return { path: repository, reference }
    }),
  }
}

const asJson = (condition: object) => JSON.parse(JSON.stringify(condition)) as JsonObject & Record<string, never>
