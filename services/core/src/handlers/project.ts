import type { Condition } from '@haven/db'
import { hasRepositories } from '@haven/artifacts'
import { problems } from '@haven/errors'
import {
  addMetadatum,
  countMembers,
  createProject,
  deleteProject,
  listProjects,
  notDeletable,
  readProject,
  removeMetadatum,
  setMetadatum,
  updateProject,
  usage,
  type ProjectDetails,
  type ProjectQuery,
} from '@haven/projects'
import { ownerFor, self, userIdsNamed, userNames } from '@haven/identity'
import { may, requireSignedIn } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { allowlistOf } from '../present/allowlist.ts'
import { presentProject, presentProjectBriefly } from '../present/project.ts'
import { visibleProjectsOf } from '../visible.ts'

export const projectHandlers: Handlers = {
  async listProjects({ query, caller, at }, deps) {
    const { q, rest } = splitQ(parseQ(query.q))
    const owner = query.owner ?? q.owner
    const asked: ProjectQuery = {
      visible: await visibleProjectsOf(caller),
      conditions: rest,
      sort: parseSort(query.sort),
      page: pageOf(query),
    }
    if (query.name !== undefined) asked.name = query.name
    const isPublic = query.public ?? q.public
    if (isPublic !== undefined) asked.public = isPublic
    if (owner !== undefined) asked.ownerIds = await userIdsNamed(deps, [owner])
    const { total, projects } = await listProjects(deps.db, asked)
    return listAnswer(at, query, total, await present(deps, caller, projects, query.with_detail ?? true))
  },

  /** Whether it is there for the caller: of a private project, a stranger does not learn that its name is taken. */
  async headProject({ query, caller }, deps) {
    const project = await deps.directory.byName(query.project_name)
    const visible = project && (await may(caller, { resource: self, action: 'read', on: { project } }))
    if (!visible) throw problems.projectNotFound({ project: query.project_name })
    return ok()
  },

  async createProject({ body, headers, caller, at }, deps) {
    requireSignedIn(caller)
    const systemAdmin = await may(caller, { resource: 'project', action: 'update', on: 'system' })
    await requireMayCreate(caller, deps)
    if (body.registry_id) {
      if (!systemAdmin) throw problems.forbidden({ message: 'Only system admin can create proxy cache project' })
      throw problems.badRequest({ message: `registry ${body.registry_id} not found` })
    }
    const metadata: Record<string, unknown> = { ...body.metadata }
    if (metadata.public === undefined && body.public) metadata.public = 'true'
    const quotaBytes = body.storage_limit
    const project = await createProject(deps, caller.source, {
      name: body.project_name ?? '',
      ownerId: await ownerFor(deps, caller.principal),
      metadata,
      // Only administrators say how much a project may hold (threats.md A06).
      ...(systemAdmin && quotaBytes ? { quotaBytes } : {}),
      defaultQuotaBytes: (await deps.settings.read()).storage_per_project,
      ...(body.cve_allowlist && { cveAllowlist: allowlistOf(body.cve_allowlist) }),
    })
    const shown = headers['X-Resource-Name-In-Location'] ? project.name : project.id
    deps.authorities.forget()
    return created(`${withoutSlash(at.path)}/${shown}`)
  },

  async getProject({ project, caller }, deps) {
    const details = await current(deps, project)
    return ok((await present(deps, caller, [details], true))[0])
  },

  async updateProject({ project, body, caller }, deps) {
    await updateProject(deps, caller.source, project, {
      ...(body.metadata && { metadata: body.metadata }),
      ...(body.cve_allowlist && { cveAllowlist: allowlistOf(body.cve_allowlist) }),
    })
    return ok()
  },

  async deleteProject({ project, caller }, deps) {
    const holdsRepositories = (id: number) => hasRepositories(deps.db.writes, id)
    await deleteProject({ ...deps, holdsRepositories }, caller.source, project)
    deps.authorities.forget()
    return ok()
  },

  async getProjectDeletable({ project }, deps) {
    const repositories = await deps.countRepositories([project.id])
    // As Harbor writes them: `deletable` is left out when it is false.
    return ok(repositories.has(project.id) ? { message: notDeletable } : { deletable: true })
  },

  async getProjectSummary({ project, caller }, deps) {
    const on = { project }
    const [repositories, seesQuota, seesMembers] = await Promise.all([
      deps.countRepositories([project.id]),
      may(caller, { resource: 'quota', action: 'read', on }),
      may(caller, { resource: 'member', action: 'list', on }),
    ])
    const quota = seesQuota ? await usage(deps.db.reads, project.id) : null
    return ok({
      repo_count: repositories.get(project.id) ?? 0,
      ...(quota && { quota: { hard: { storage: quota.hardBytes }, used: { storage: quota.usedBytes } } }),
      ...(seesMembers && memberCounts(await countMembers(deps, project))),
    })
  },
}

export const projectMetadataHandlers: Handlers = {
  async listProjectMetadatas({ project }, deps) {
    return ok((await current(deps, project)).metadata)
  },

  async addProjectMetadatas({ project, body, caller }, deps) {
    const entries = Object.entries(body ?? {})
    const [entry] = entries
    if (!entry || entries.length !== 1) throw problems.badRequest({ message: 'only allow one key/value pair' })
    await addMetadatum(deps, caller.source, project, entry[0], entry[1])
    return ok()
  },

  async getProjectMetadata({ project, path }, deps) {
    const { metadata } = await current(deps, project)
    const value = Object.hasOwn(metadata, path.meta_name) ? metadata[path.meta_name] : undefined
    return ok(value === undefined ? {} : { [path.meta_name]: value })
  },

  async updateProjectMetadata({ project, path, body, caller }, deps) {
    const value = body && Object.hasOwn(body, path.meta_name) ? body[path.meta_name] : undefined
    await setMetadatum(deps, caller.source, project, path.meta_name, value ?? '')
    return ok()
  },

  async deleteProjectMetadata({ project, path, caller }, deps) {
    await removeMetadatum(deps, caller.source, project, path.meta_name)
    return ok()
  },
}

async function requireMayCreate(caller: Caller, deps: CoreContext): Promise<void> {
  const { principal } = caller
  const ofProject = principal.kind === 'robot' && principal.projectId !== null
  const { project_creation_restriction: who } = await deps.settings.read()
  const restricted = principal.kind === 'robot' || who === 'adminonly'
  const allowed =
    !ofProject && (!restricted || (await may(caller, { resource: 'project', action: 'create', on: 'system' })))
  if (!allowed) throw problems.forbidden({ message: 'Only system admin can create project' })
}

/** `public` and `owner` are no columns; the query language knows them all the same. */
function splitQ(conditions: readonly Condition[]): { q: { public?: boolean; owner?: string }; rest: Condition[] } {
  const q: { public?: boolean; owner?: string } = {}
  const rest = conditions.filter((condition) => {
    if (condition.match !== 'exact') return true
    if (condition.field === 'public') q.public = /^(?:true|1)$/i.test(condition.value)
    else if (condition.field === 'owner') q.owner = condition.value
    else return true
    return false
  })
  return { q, rest }
}

async function current(deps: CoreContext, { id, name }: { id: number; name: string }): Promise<ProjectDetails> {
  const details = await readProject(deps.db, id)
  if (!details) throw problems.projectNotFound({ project: name })
  return details
}

async function present(deps: CoreContext, caller: Caller, projects: readonly ProjectDetails[], detailed: boolean) {
  const [counts, names, authority] = await Promise.all([
    deps.countRepositories(projects.map((project) => project.id)),
    detailed
      ? userNames(
          deps,
          projects.map((project) => project.ownerId),
        )
      : new Map<number, string>(),
    caller.authority(),
  ])
  return projects.map((project) => {
    const repositoryCount = counts.get(project.id) ?? 0
    const roleIds = authority.rolesOn(project.id).map((role) => role.id)
    return detailed
      ? presentProject({ project, ownerName: names.get(project.ownerId), repositoryCount, roleIds })
      : presentProjectBriefly({ project, repositoryCount, roleIds })
  })
}

/** Harbor leaves a role out that nobody has. */
function memberCounts(byRole: ReadonlyMap<number, number>) {
  const fields = {
    1: 'project_admin_count',
    2: 'developer_count',
    3: 'guest_count',
    4: 'maintainer_count',
    5: 'limited_guest_count',
  }
  return Object.fromEntries(
    Object.entries(fields).flatMap(([role, field]) => {
      const count = byRole.get(Number(role))
      return count ? [[field, count] as const] : []
    }),
  )
}

const withoutSlash = (path: string) => path.replace(/\/$/, '')
