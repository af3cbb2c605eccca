import { detachLabel } from '@haven/artifacts'
import { problems } from '@haven/errors'
import {
  createLabel,
  deleteLabel,
  findLabel,
  listLabels,
  updateLabel,
  type Label,
  type LabelText,
  type ProjectFacts,
} from '@haven/projects'
import type { BodyOf } from '@haven/proto'
import { may, refusal, requireProject, requireSignedIn, requireSystem } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { presentLabel } from '../present/label.ts'

export const labelHandlers: Handlers = {
  /** Labels of the installation are for everybody, those of a project for who may list them there. */
  async ListLabels({ query, caller, at }, deps) {
    const { scope = '', project_id: projectId = 0 } = query
    if (scope !== 'g' && scope !== 'p') throw problems.badRequest({ message: `invalid scope: ${scope}` })
    if (scope === 'p') {
      if (projectId === 0) throw problems.badRequest({ message: 'must with project ID when to query project labels' })
      await requireOnProject(deps, caller, 'list', projectId)
    }
    const { total, labels } = await listLabels(deps, {
      projectId: scope === 'p' ? projectId : 0,
      ...(query.name !== undefined && { name: query.name }),
      conditions: parseQ(query.q),
      sort: parseSort(query.sort),
      page: pageOf(query),
    })
    return listAnswer(at, query, total, labels.map(presentLabel))
  },

  async CreateLabel({ body, caller, at }, deps) {
    requireSignedIn(caller)
    const { scope, project_id: projectId = 0 } = body
    if (scope !== 'g' && scope !== 'p') throw problems.badRequest({ message: 'unsupported label scope' })
    let project: ProjectFacts | null = null
    if (scope === 'p') project = await requireOnProject(deps, caller, 'create', projectId)
    else await requireSystem(caller, { resource: 'label', action: 'create' })
    const id = await createLabel(deps, caller.source, project, textOf(body))
    return created(`${at.path.replace(/\/$/, '')}/${id}`)
  },

  async GetLabelByID({ path, caller }, deps) {
    return ok(presentLabel((await requireLabel(deps, caller, 'read', path.label_id)).label))
  },

  async UpdateLabel({ path, body, caller }, deps) {
    const { label, project } = await requireLabel(deps, caller, 'update', path.label_id)
    await updateLabel(deps, caller.source, project, label.id, textOf(body))
    return ok()
  },

  async DeleteLabel({ path, caller }, deps) {
    const { label, project } = await requireLabel(deps, caller, 'delete', path.label_id)
    await deleteLabel(deps, caller.source, project, label, (tx) => detachLabel(tx, label.id))
    return ok()
  },
}

const textOf = ({ name = '', description = '', color = '' }: BodyOf<'CreateLabel'>): LabelText => ({
  name,
  description,
  color,
})

/** A label that the caller may handle. Whoever may handle none in the installation learns nothing from ids (threats.md R2). */
async function requireLabel(
  deps: CoreContext,
  caller: Caller,
  action: string,
  id: number,
): Promise<{ label: Label; project: ProjectFacts | null }> {
  requireSignedIn(caller)
  const label = await findLabel(deps, id).catch(async (error: unknown) => {
    if (problems.notFound.is(error) && !(await may(caller, { resource: 'label', action, on: 'system' }))) {
      throw refusal(caller)
    }
    throw error
  })
  if (label.projectId !== 0) return { label, project: await requireOnProject(deps, caller, action, label.projectId) }
  await requireSystem(caller, { resource: 'label', action })
  return { label, project: null }
}

const requireOnProject = async (deps: CoreContext, caller: Caller, action: string, projectId: number) =>
  requireProject(deps, caller, { resource: 'label', action }, await deps.directory.byId(projectId), String(projectId))
