import {
  conditionsToSql,
  isUniqueViolation,
  listKept,
  orderOf,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import {
  RobotCreatedSchema,
  RobotDeletedSchema,
  RobotSecretRefreshedSchema,
  RobotUpdatedSchema,
} from '@haven/proto/events'
import type { Authorities } from './authorities.ts'
import type { Authority } from './authority.ts'
import { mayPassOn, type Scope } from './decide.ts'
import { generateSecret, hashPassword, hashRobotSecret, meetsPasswordRule } from './passwords.ts'
import { permissionKey, type Permission } from './permissions.ts'
import type { SignInDeps } from './sign-in.ts'

type Transaction = Prisma.TransactionClient

export type RobotDeps = {
  readonly db: Database
  /** Told at once of changes that this process makes, so that its next request sees them. */
  readonly authorities: Pick<Authorities, 'forget'>
  readonly signIn: Pick<SignInDeps, 'remembered' | 'robotPrefix'>
  /** Keeps projects from being deleted until the transaction ends. @throws projectNotFound for one that was */
  holdProjects(tx: Transaction, projectIds: readonly number[]): Promise<void>
}

/** What a robot may do, or (deny) may not although it may do everything of that kind, in one place. */
export type RobotPermission = {
  readonly scope: Scope
  readonly access: readonly (Permission & {
    readonly effect: 'allow' | 'deny'
    /** Whether it was said or left out, which tells what to show. */
    readonly effectGiven?: boolean
  })[]
}

/** What may be told about a robot: never a hash. */
export type RobotFacts = {
  readonly id: number
  /** Without the configured prefix; `<project>+<name>` for a project's robot. */
  readonly name: string
  readonly description: string
  /** Null: a robot of the system. */
  readonly projectId: number | null
  /** -1: never expires. */
  readonly durationDays: number
  /** Unix seconds; -1: never. */
  readonly expiresAtSeconds: number
  readonly disabled: boolean
  /** False for robots of a Harbor 1.x: they can only be deleted. */
  readonly editable: boolean
  readonly deleted: boolean
  readonly creator: RobotCreator
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly permissions: readonly RobotPermission[]
}

export type RobotCreator = { readonly kind: 'local' | 'robot'; readonly id: number }

export type NewRobot = {
  readonly name: string
  readonly description: string
  /** Where it lives; null: the system. */
  readonly project: { readonly id: number; readonly name: string } | null
  readonly durationDays: number
  readonly disabled: boolean
  readonly permissions: readonly RobotPermission[]
  readonly creator: RobotCreator
}

const maxNameLength = 255
const maxDescriptionLength = 1024
const daySeconds = 24 * 60 * 60
/** What Postgres can hold as a time; a robot that expires later does not expire. */
const maxTimeMs = Date.UTC(200_000, 0)

/** Harbor's rule (harbor-rbac.md §8). @throws badRequest */
export function requireRobotName(name: string): string {
  if (name.length <= maxNameLength && /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/.test(name)) return name
  throw problems.badRequest({ message: 'robot name is not in lower case or contains illegal characters' })
}

/** Days, or -1 for ever. @throws badRequest */
export function requireRobotDuration(days: number): number {
  if (Number.isInteger(days) && days >= -1 && days !== 0 && days < 2 ** 31 - 1) return days
  throw problems.badRequest({
    message: `bad request error duration input: ${days}, duration must be either -1(Never) or a positive integer`,
  })
}

/**
 * Makes a robot with a secret, which is never told again.
 * @param giver who makes it: nobody gives more than he has (threats.md A09, A10).
 * @throws badRequest, denied; conflict when the name is taken; projectNotFound
 */
export async function createRobot(
  deps: RobotDeps,
  source: EventSource,
  giver: Authority,
  input: NewRobot,
): Promise<{ robot: RobotFacts; secret: string }> {
  const { project, durationDays } = input
  const short = requireRobotName(input.name)
  const name = project ? `${project.name}+${short}` : short
  const prefix = await deps.signIn.robotPrefix()
  if ((prefix + name).length > maxNameLength) {
    throw problems.badRequest({ message: `robot name is longer than ${maxNameLength} characters with its prefix` })
  }
  requireDescription(input.description)
  requireMayGive(giver, input.permissions)
  const secret = generateSecret()
  const createdAt = new Date()
  const row = await deps.db.prisma
    .$transaction(async (tx) => {
      await deps.holdProjects(tx, projectIdsOf(input.permissions, project?.id))
      const made = await tx.robot.create({
        data: {
          name,
          nameKey: name,
          description: input.description,
          projectId: project?.id ?? null,
          durationDays: requireRobotDuration(durationDays),
          expiresAt: expiryOf(createdAt, durationDays),
          disabledAt: input.disabled ? createdAt : null,
          creatorKind: input.creator.kind,
          creatorId: input.creator.id,
          createdAt,
          credentials: { create: { kind: 'robot-secret', ...hashRobotSecret(secret) } },
        },
      })
      await tx.grant.createMany({ data: grantsFor(made.id, input.permissions, source) })
      await emit(tx, RobotCreatedSchema, source, refs(prefix, made))
      return made
    })
    .catch((error: unknown) => {
      if (!isUniqueViolation(error)) throw error
      throw problems.conflict({ message: `robot account ${project?.id ?? 0}:${name} already exists` }, { cause: error })
    })
  deps.authorities.forget()
  return { robot: facts(row, input.permissions), secret }
}

/**
 * Changes a robot; its permissions are replaced whole. Its name and where it lives stay.
 * @throws denied for a robot that cannot be edited, and for more than the giver has; badRequest, notFound
 */
export async function updateRobot(
  deps: RobotDeps,
  source: EventSource,
  giver: Authority,
  robot: RobotFacts,
  change: Pick<RobotFacts, 'description' | 'disabled' | 'durationDays' | 'permissions'>,
): Promise<void> {
  if (!robot.editable) throw problems.denied({ message: 'editing of legacy robot is not allowed' })
  requireDescription(change.description)
  requireRobotDuration(change.durationDays)
  const had = keysOf(robot.permissions)
  const added = change.permissions.map(({ scope, access }) => ({
    scope,
    access: access.filter((one) => !had.has(keyOf(scope, one))),
  }))
  requireMayGive(giver, added)
  const [before, after] = [asGiven(robot.permissions), asGiven(change.permissions)]
  const fields = [
    ...(change.description === robot.description ? [] : ['description']),
    ...(change.disabled === robot.disabled ? [] : ['disabled']),
    ...(change.durationDays === robot.durationDays ? [] : ['duration']),
    ...(after.size === before.size && [...after].every((one) => before.has(one)) ? [] : ['permissions']),
  ]
  if (fields.length === 0) return
  const prefix = await deps.signIn.robotPrefix()
  await deps.db.prisma.$transaction(async (tx) => {
    await deps.holdProjects(tx, projectIdsOf(change.permissions, robot.projectId))
    // The row first, whatever changes: of two updates at once the second then sees, and replaces, the permissions of the first.
    await changeRow(tx, robot, {
      description: change.description,
      ...(fields.includes('disabled') && { disabledAt: change.disabled ? new Date() : null }),
      ...(fields.includes('duration') && {
        durationDays: change.durationDays,
        expiresAt: expiryOf(robot.createdAt, change.durationDays),
      }),
    })
    if (fields.includes('permissions')) {
      await tx.grant.deleteMany({ where: permissionGrantsOf([robot.id]) })
      await tx.grant.createMany({ data: grantsFor(robot.id, change.permissions, source) })
    }
    await emit(tx, RobotUpdatedSchema, source, { ...refs(prefix, robot), fields })
  })
  forget(deps)
}

/**
 * Gives a robot another secret; the old one proves nothing from then on.
 * @param giver whoever knows the secret has what the robot has, so he must have had it before.
 * @param chosen null: one is made.
 * @returns the secret that was made; null for one that was chosen.
 * @throws badRequest for a secret against the rule; denied, notFound
 */
export async function refreshRobotSecret(
  deps: RobotDeps,
  source: EventSource,
  giver: Authority,
  robot: RobotFacts,
  chosen: string | null,
): Promise<string | null> {
  requireMayGive(giver, robot.permissions)
  if (chosen !== null && !meetsPasswordRule(chosen)) {
    throw problems.badRequest({
      message:
        'the secret must be 8-128, inclusively, characters long with at least 1 uppercase letter, 1 lowercase letter and 1 number',
    })
  }
  const made = chosen === null ? generateSecret() : null
  // What a person chose can be guessed: it is hashed as a password.
  const stored = chosen === null ? hashRobotSecret(made!) : await hashPassword(chosen)
  const prefix = await deps.signIn.robotPrefix()
  await deps.db.prisma.$transaction(async (tx) => {
    await changeRow(tx, robot, { updatedAt: new Date() })
    const before = await tx.credential.findFirst({ where: { robotId: robot.id }, orderBy: [{ lastUsedAt: 'desc' }] })
    await tx.credential.deleteMany({ where: { robotId: robot.id } })
    await tx.credential.create({
      data: {
        robotId: robot.id,
        kind: 'robot-secret',
        ...stored,
        // When the robot was seen last does not depend on which secret it showed.
        ...(before && {
          lastUsedAt: before.lastUsedAt,
          lastUsedAddress: before.lastUsedAddress,
          lastUsedAgent: before.lastUsedAgent,
        }),
      },
    })
    await emit(tx, RobotSecretRefreshedSchema, source, refs(prefix, robot))
  })
  forget(deps)
  return made
}

/** Deletes a robot: its name is free, its secrets and grants are gone; a row stays, since logs name it. @throws notFound */
export async function deleteRobot(deps: RobotDeps, source: EventSource, robot: RobotFacts): Promise<void> {
  const prefix = await deps.signIn.robotPrefix()
  await deps.db.prisma.$transaction(async (tx) => {
    await changeRow(tx, robot, { nameKey: null, deletedAt: new Date() })
    await tx.grant.deleteMany({ where: { principalKind: 'robot', principalId: robot.id } })
    await tx.credential.deleteMany({ where: { robotId: robot.id } })
    await emit(tx, RobotDeletedSchema, source, refs(prefix, robot))
  })
  forget(deps)
}

/** The robot of this id, a deleted one too, so that its former neighbours are told that it is gone. Null: there never was one. */
export async function findRobot({ db }: Pick<RobotDeps, 'db'>, id: number): Promise<RobotFacts | null> {
  if (!Number.isSafeInteger(id) || id < 1 || id >= 2 ** 31) return null
  const [row, permissions] = await Promise.all([
    db.prisma.robot.findUnique({ where: { id } }),
    permissionsOfRobots(db, [id]),
  ])
  return row && facts(row, permissions.get(id) ?? [])
}

export type RobotQuery = {
  /** Null: robots of the system. */
  readonly projectId: number | null
  readonly conditions?: readonly Condition[]
  readonly sort?: readonly Sort[]
  readonly page: Page
}

const fields: Fields = {
  id: { column: Prisma.sql`id`, type: 'number' },
  name: { column: Prisma.sql`name`, type: 'text' },
  description: { column: Prisma.sql`description`, type: 'text' },
  duration: { column: Prisma.sql`duration_days`, type: 'number' },
  creator_ref: { column: Prisma.sql`creator_id`, type: 'number' },
  creator_type: { column: Prisma.sql`creator_kind`, type: 'text' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
  update_time: { column: Prisma.sql`updated_at`, type: 'time' },
}

/** The project too, though it is the same for all: an index by it and the name is not seen to be in the order of names where it is null. */
const byName = ['project_id', 'name'].map((column) => ({ column: Prisma.raw(column), descending: false }))

/**
 * A page of the robots of a project or of the system, by name, and how many there are: three statements. Robots that the platform makes
 * for itself are not among them.
 * @throws badRequest for a value that its field cannot have.
 */
export async function listRobots(
  { db }: Pick<RobotDeps, 'db'>,
  query: RobotQuery,
): Promise<{ total: number; robots: RobotFacts[] }> {
  const { total, rows } = await listKept<RobotRow>(db, {
    columns: Prisma.sql`
      id, name, description, project_id as "projectId", duration_days as "durationDays", expires_at as "expiresAt",
      disabled_at as "disabledAt", editable, deleted_at as "deletedAt", creator_kind as "creatorKind", creator_id as "creatorId",
      created_at as "createdAt", updated_at as "updatedAt"`,
    from: Prisma.sql`identity.robots`,
    where: [
      query.projectId === null ? Prisma.sql`project_id is null` : Prisma.sql`project_id = ${query.projectId}`,
      Prisma.sql`deleted_at is null and visible`,
      ...conditionsToSql(query.conditions ?? [], fields),
    ],
    order: orderOf(query.sort ?? [], fields, byName, Prisma.sql`id`),
    page: query.page,
    tables: ['identity.robots'],
  })
  const permissions = await permissionsOfRobots(
    db,
    rows.map((row) => row.id),
  )
  return { total, robots: rows.map((row) => facts(row, permissions.get(row.id) ?? [])) }
}

/** When, from where and by which program a robot signed in last. */
export type RobotUse = {
  readonly id: number
  readonly name: string
  readonly projectId: number | null
  readonly state: 'active' | 'disabled' | 'expired'
  readonly lastUsedAt: Date | null
  readonly address: string | null
  readonly agent: string | null
}

/** The last uses of robots that are there, by id: one statement. A use is seen about ten seconds after it. */
export async function robotUses({ db }: Pick<RobotDeps, 'db'>, ids: readonly number[]): Promise<RobotUse[]> {
  return db.prisma.$queryRaw<RobotUse[]>`
    select r.id, r.name, r.project_id as "projectId",
           case when r.disabled_at is not null then 'disabled' when r.expires_at <= now() then 'expired' else 'active' end as state,
           c.last_used_at as "lastUsedAt", c.last_used_address as address, c.last_used_agent as agent
      from identity.robots r
      left join lateral (
        select last_used_at, last_used_address, last_used_agent from identity.credentials
         where robot_id = r.id order by last_used_at desc nulls last limit 1) c on true
     where r.id = any(${[...ids]}::int[]) and r.deleted_at is null and r.visible
     order by r.id`
}

function requireDescription(text: string): void {
  if (text.length <= maxDescriptionLength) return
  throw problems.badRequest({ message: `robot description is longer than ${maxDescriptionLength} characters` })
}

/** @throws denied */
function requireMayGive(giver: Authority, permissions: readonly RobotPermission[]): void {
  const lacking = permissions.flatMap(({ scope, access }) =>
    access.filter((one) => one.effect === 'allow' && !mayGive(giver, one, scope)),
  )
  const [first] = lacking
  if (!first) return
  throw problems.denied({
    message: `permission scope is invalid: ${permissionKey(first.resource, first.action)} is more than the caller has`,
  })
}

// No role lists metadata, though every page and program that ticks all boxes asks for it; who may read each may have them all.
const mayGive = (giver: Authority, permission: Permission, scope: Scope) =>
  mayPassOn(giver, permission, scope) ||
  (scope !== 'system' &&
    permission.resource === 'metadata' &&
    permission.action === 'list' &&
    mayPassOn(giver, { resource: 'metadata', action: 'read' }, scope))

const keyOf = (scope: Scope, { resource, action, effect }: Permission & { effect: string }) =>
  `${scope} ${permissionKey(resource, action)} ${effect}`

const keysOf = (permissions: readonly RobotPermission[]) =>
  new Set(permissions.flatMap(({ scope, access }) => access.map((one) => keyOf(scope, one))))

/** As it is shown: to say an effect changes no right, but what is told. */
const asGiven = (permissions: readonly RobotPermission[]) =>
  new Set(
    permissions.flatMap(({ scope, access }) => access.map((one) => `${keyOf(scope, one)} ${one.effectGiven ?? false}`)),
  )

const projectIdsOf = (permissions: readonly RobotPermission[], home?: number | null): number[] => [
  ...new Set([
    ...permissions.flatMap(({ scope }) => (typeof scope === 'number' ? [scope] : [])),
    ...(home ? [home] : []),
  ]),
]

function expiryOf(createdAt: Date, days: number): Date | null {
  const ms = createdAt.getTime() + days * daySeconds * 1000
  return days === -1 || ms > maxTimeMs ? null : new Date(ms)
}

const permissionGrantsOf = (robotIds: readonly number[]) => ({
  principalKind: 'robot',
  principalId: { in: [...robotIds] },
  roleId: null,
  nodeKind: { in: ['system', 'project'] },
})

function grantsFor(id: number, permissions: readonly RobotPermission[], { principal }: EventSource) {
  const rows = new Map<string, Prisma.GrantCreateManyInput>()
  for (const { scope, access } of permissions) {
    for (const { resource, action, effect, effectGiven } of access) {
      rows.set(keyOf(scope, { resource, action, effect }), {
        principalKind: 'robot',
        principalId: id,
        resource,
        action,
        effect,
        effectGiven: effectGiven ?? false,
        nodeKind: scope === 'system' ? 'system' : 'project',
        projectId: typeof scope === 'number' ? scope : null,
        createdBy: 'name' in principal ? principal.name : null,
      })
    }
  }
  return [...rows.values()]
}

async function permissionsOfRobots(db: Database, ids: readonly number[]): Promise<Map<number, RobotPermission[]>> {
  const grants = await db.prisma.grant.findMany({
    where: permissionGrantsOf(ids),
    orderBy: [
      { nodeKind: 'desc' },
      { projectId: { sort: 'asc', nulls: 'last' } },
      { resource: 'asc' },
      { action: 'asc' },
    ],
  })
  const byRobot = new Map<number, Map<Scope, RobotPermission['access'][number][]>>()
  for (const { principalId, nodeKind, projectId, resource, action, effect, effectGiven } of grants) {
    const scope: Scope = nodeKind === 'system' ? 'system' : (projectId ?? 'every-project')
    const scopes = byRobot.get(principalId) ?? new Map()
    byRobot.set(principalId, scopes)
    scopes.set(scope, [
      ...(scopes.get(scope) ?? []),
      { resource: resource ?? '', action: action ?? '', effect: effect === 'deny' ? 'deny' : 'allow', effectGiven },
    ])
  }
  return new Map([...byRobot].map(([id, scopes]) => [id, [...scopes].map(([scope, access]) => ({ scope, access }))]))
}

async function changeRow(tx: Transaction, { id }: RobotFacts, data: Prisma.RobotUpdateManyMutationInput) {
  const { count } = await tx.robot.updateMany({ where: { id, deletedAt: null }, data })
  if (count === 0) throw problems.notFound({ resource: 'robot', id })
}

function forget({ authorities, signIn }: RobotDeps) {
  authorities.forget()
  signIn.remembered.forget()
}

const refs = (prefix: string, { id, name, projectId }: { id: number; name: string; projectId: number | null }) => ({
  robot: { id: BigInt(id), name: prefix + name },
  ...(projectId !== null && { project: { id: BigInt(projectId), name: name.split('+')[0]! } }),
})

type RobotRow = Omit<Prisma.RobotGetPayload<object>, 'nameKey' | 'visible'>

function facts(row: RobotRow, permissions: readonly RobotPermission[]): RobotFacts {
  const never = row.durationDays === -1 && row.expiresAt === null
  const expiresAtSeconds = row.expiresAt
    ? Math.floor(row.expiresAt.getTime() / 1000)
    : Math.floor(row.createdAt.getTime() / 1000) + row.durationDays * daySeconds
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    projectId: row.projectId,
    durationDays: row.durationDays,
    expiresAtSeconds: never ? -1 : expiresAtSeconds,
    disabled: row.disabledAt !== null,
    editable: row.editable,
    deleted: row.deletedAt !== null,
    creator: { kind: row.creatorKind === 'robot' ? 'robot' : 'local', id: row.creatorId },
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
    permissions,
  }
}
