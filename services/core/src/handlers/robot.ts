import type { Condition } from '@haven/db'
import { problems } from '@haven/errors'
import {
  createRobot,
  deleteRobot,
  findRobot,
  grantedResource,
  listRobots,
  ownerFor,
  refreshRobotSecret,
  requireRobotDuration,
  requireRobotName,
  robotCatalogue,
  robotUses,
  updateRobot,
  type RobotFacts,
  type RobotPermission,
} from '@haven/identity'
import { holdProjects, listProjects, projectNames, type ProjectFacts } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'
import { findProject, may, refusal, requireProject, requireSignedIn, requireSystem } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { presentRobot, presentRobotUse, projectIdsIn } from '../present/robot.ts'
import { time } from '../present/time.ts'

type Level = 'system' | 'project'

export const robotHandlers: Handlers = {
  async ListRobot({ query, caller, at }, context) {
    requireSignedIn(caller)
    const { projectId, conditions } = whereTheyLive(parseQ(query.q))
    if (projectId === null) await requireSystem(caller, { resource: 'robot', action: 'list' })
    else {
      const project = await findProject(context, String(projectId), false)
      await requireProject(context, caller, { resource: 'robot', action: 'list' }, project, String(projectId))
    }
    const { total, robots } = await listRobots(context, {
      projectId,
      conditions,
      sort: parseSort(query.sort),
      page: pageOf(query),
    })
    return listAnswer(at, query, total, await present(context, robots))
  },

  /** What is wrong with the request itself is said before anything else, to anybody, as in Harbor. */
  async CreateRobot({ body, caller, at }, context) {
    const name = requireRobotName(body.name ?? '')
    const asked = readRobot(body, body.duration ?? 0)
    const project = await requireHome(context, caller, asked, 'create')
    const deps = depsOf(context)
    const { robot, secret } = await createRobot(deps, caller.source, await caller.authority(), {
      name,
      project,
      description: body.description ?? '',
      durationDays: asked.durationDays,
      disabled: body.disable ?? false,
      permissions: await resolve(context, asked, project),
      creator:
        caller.principal.kind === 'robot'
          ? { kind: 'robot', id: caller.principal.id }
          : { kind: 'local', id: await ownerFor(context, caller.principal) },
    })
    return {
      ...created(`${at.path.replace(/\/$/, '')}/${robot.id}`),
      body: {
        id: robot.id,
        name: (await prefixOf(context)) + robot.name,
        secret,
        creation_time: time(robot.createdAt),
        expires_at: robot.expiresAtSeconds,
      } satisfies HarborSchemas['RobotCreated'],
    }
  },

  async GetRobotByID({ path, caller }, context) {
    const robot = await requireRobot(context, caller, path.robot_id, 'read')
    return ok((await present(context, [robot]))[0])
  },

  async UpdateRobot({ path, body, caller }, context) {
    const robot = await requireRobot(context, caller, path.robot_id, 'update')
    const asked = readRobot(body, body.duration ?? robot.durationDays)
    const level = robot.projectId === null ? 'system' : 'project'
    if (asked.level !== level || body.name !== (await prefixOf(context)) + robot.name) {
      throw problems.badRequest({ message: 'cannot update the level or name of robot' })
    }
    const project = level === 'project' ? await context.directory.byName(asked.entries[0]?.namespace ?? '') : null
    if ((project?.id ?? null) !== robot.projectId) {
      throw problems.badRequest({ message: 'cannot update the project id of robot' })
    }
    await updateRobot(depsOf(context), caller.source, await caller.authority(), robot, {
      description: body.description ?? '',
      disabled: body.disable ?? false,
      durationDays: asked.durationDays,
      permissions: await resolve(context, asked, project),
    })
    return ok()
  },

  async RefreshSec({ path, body, caller }, context) {
    const robot = await requireRobot(context, caller, path.robot_id, 'update')
    const chosen = body.secret ? body.secret : null
    const authority = await caller.authority()
    const secret = await refreshRobotSecret(depsOf(context), caller.source, authority, robot, chosen)
    return ok(secret === null ? {} : { secret })
  },

  async DeleteRobot({ path, caller }, context) {
    const robot = await requireRobot(context, caller, path.robot_id, 'delete')
    await deleteRobot(depsOf(context), caller.source, robot)
    return ok()
  },

  async listRobotUses({ query, caller }, context) {
    const uses = await robotUses(context, query.ids.map(Number))
    const homes = [...new Set(uses.map(({ projectId }) => projectId))]
    const seen = new Map(
      await Promise.all(homes.map(async (home) => [home, await mayAt(context, caller, home, 'read')] as const)),
    )
    const prefix = await prefixOf(context)
    return ok(uses.filter(({ projectId }) => seen.get(projectId)).map((use) => presentRobotUse(use, prefix)))
  },
}

const depsOf = (context: CoreContext) => ({ ...context, holdProjects })

const prefixOf = ({ signIn }: CoreContext) => signIn.robotPrefix()

async function present(context: CoreContext, robots: readonly RobotFacts[]) {
  const [names, prefix] = await Promise.all([projectNames(context, projectIdsIn(robots)), prefixOf(context)])
  return robots.map((robot) => presentRobot(robot, { prefix, projectNames: names }))
}

/** `Level=project,ProjectID=<id>` of the query language says whose robots are asked for; the rest are conditions on them. */
function whereTheyLive(all: readonly Condition[]): { projectId: number | null; conditions: Condition[] } {
  const told = new Map<string, string>()
  const conditions = all.filter((condition) => {
    const key = condition.field.replaceAll('_', '').toLowerCase()
    if (key !== 'level' && key !== 'projectid') return true
    if (condition.match === 'exact') told.set(key, condition.value)
    return false
  })
  const level = told.get('level') ?? 'system'
  if (level !== 'system' && level !== 'project') {
    throw problems.badRequest({ message: 'bad request error level input' })
  }
  if (level === 'system') return { projectId: null, conditions }
  const id = told.get('projectid')
  if (id === undefined) throw problems.badRequest({ message: 'must with project ID when to query project robots' })
  if (!/^\d{1,18}$/.test(id)) throw problems.badRequest({ message: `invalid project ID: ${id}` })
  return { projectId: Number(id), conditions }
}

type Entry = { kind: Level; namespace: string; access: RobotPermission['access'] }
type Asked = { level: Level; durationDays: number; entries: Entry[] }

/** What a body asks for, checked in Harbor's order and with its texts; names of projects are not looked up yet. @throws badRequest */
function readRobot(
  { level, permissions }: Pick<HarborSchemas['RobotCreate'], 'level' | 'permissions'>,
  duration: number,
): Asked {
  const durationDays = requireRobotDuration(duration)
  if (!isLevel(level)) throw problems.badRequest({ message: `bad request error level input: ${level ?? ''}` })
  const given = permissions ?? []
  if (given.length === 0) throw problems.badRequest({ message: 'bad request empty permission' })
  if (given.some(({ access }) => !access || access.length === 0)) {
    throw problems.badRequest({ message: 'bad request empty access' })
  }
  if (level === 'project' && given.length > 1) throw problems.badRequest({ message: 'bad request permission' })
  const entries = given.map(({ kind, namespace = '', access }): Entry => {
    if (!isLevel(kind)) throw problems.badRequest({ message: `bad request permission level: ${kind ?? ''}` })
    return { kind, namespace, access: (access ?? []).map((one) => readAccess(kind, one)) }
  })
  return { level, durationDays, entries }
}

const isLevel = (text: string | undefined): text is Level => text === 'system' || text === 'project'

const catalogues = { system: robotCatalogue('system'), project: robotCatalogue('project') }

function readAccess(
  kind: Level,
  { resource = '', action = '', effect = '' }: HarborSchemas['Access'],
): RobotPermission['access'][number] {
  if (!catalogues[kind].some((each) => each.resource === resource && each.action === action)) {
    throw problems.badRequest({ message: `bad request permission: ${resource}:${action}` })
  }
  if (effect !== '' && effect !== 'allow' && effect !== 'deny') {
    throw problems.badRequest({ message: `bad request permission effect: ${effect}` })
  }
  return {
    resource: grantedResource(kind, resource),
    action,
    effect: effect === 'deny' ? 'deny' : 'allow',
    effectGiven: effect !== '',
  }
}

/** Where a new robot is to live, once the caller may make one there; null: the system. */
async function requireHome(
  context: CoreContext,
  caller: Caller,
  { level, entries }: Asked,
  action: string,
): Promise<ProjectFacts | null> {
  if (level === 'system') {
    await requireSystem(caller, { resource: 'robot', action })
    return null
  }
  const named = entries[0]?.namespace ?? ''
  const project = await context.directory.byName(named)
  return requireProject(context, caller, { resource: 'robot', action }, project, named)
}

/** The permissions with their projects looked up, all names by one statement. @throws badRequest, projectNotFound */
async function resolve(
  { db }: CoreContext,
  { level, entries }: Asked,
  home: ProjectFacts | null,
): Promise<RobotPermission[]> {
  if (entries.some(({ kind, namespace }) => kind === 'system' && namespace !== '/')) {
    throw problems.badRequest({ message: 'unknown namespace' })
  }
  const names = new Set(entries.flatMap(({ kind, namespace }) => (kind === 'project' ? [namespace] : [])))
  names.delete('*')
  if (home) names.delete(entries[0]?.namespace ?? '')
  const ids = new Map(names.size === 0 ? [] : await idsOf(db, [...names]))
  return entries.map(({ kind, namespace, access }) => {
    if (level === 'project') {
      // Its only entry names its home; one of the system has no place in it.
      if (kind !== 'project' || !home) throw problems.badRequest({ message: 'bad request permission' })
      return { scope: home.id, access }
    }
    if (kind === 'system') return { scope: 'system', access }
    if (namespace === '*') return { scope: 'every-project', access }
    const id = ids.get(namespace)
    if (id === undefined) throw problems.projectNotFound({ project: namespace })
    return { scope: id, access }
  })
}

async function idsOf(db: CoreContext['db'], names: string[]): Promise<[string, number][]> {
  const conditions: Condition[] = [{ field: 'name', match: 'in', values: names }]
  const { projects } = await listProjects(db, { visible: 'all', conditions, page: { number: 1, size: 0 } })
  return projects.map(({ name, id }) => [name, id])
}

/**
 * A robot that the caller may do this to. Whoever may not cannot tell one that is there from one that never was; where it lived, it is
 * known that it is gone.
 * @throws unauthorized, forbidden, notFound
 */
async function requireRobot(context: CoreContext, caller: Caller, id: number, action: string): Promise<RobotFacts> {
  requireSignedIn(caller)
  const robot = await findRobot(context, id)
  if (!(await mayAt(context, caller, robot?.projectId ?? null, action))) throw refusal(caller)
  if (!robot || robot.deleted) throw problems.notFound({ resource: 'robot', id })
  return robot
}

/** May the caller do this to robots of a project, or (null) of the system? Of a project that is gone, nobody but who rules the system. */
async function mayAt(context: CoreContext, caller: Caller, home: number | null, action: string): Promise<boolean> {
  const project = home === null ? null : await context.directory.byId(home)
  return may(caller, { resource: 'robot', action, on: project ? { project } : 'system' })
}
