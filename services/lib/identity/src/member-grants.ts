import { isUniqueViolation, listKept, Prisma, statement, type Database, type Db, type Page, type Sql } from '@haven/db'
import { problems } from '@haven/errors'
import { projectRoles, roles } from './permissions.ts'

/** A user or group with a role in a project: what Harbor calls a member. Its verbs, with their events, are in @haven/projects. */
export type MemberFacts = {
  readonly id: number
  readonly projectId: number
  readonly kind: 'user' | 'group'
  readonly memberId: number
  readonly name: string
  readonly roleId: number
  readonly createdAt: Date
  readonly updatedAt: Date
}

type Tx = Pick<Db, 'grant' | 'robot' | '$queryRaw' | '$executeRaw'>

const insertMember = statement<{ id: number }>(
  'identity: member added',
  `insert into identity.grants (principal_kind, principal_id, role_id, node_kind, project_id, created_by)
   values ($1, $2, $3, 'project', $4, $5) returning id`,
)
const holdGroup = statement<{ id: number }>(
  'identity: group held',
  'select id from identity.groups where id = $1 for key share',
)
const holdUser = statement<{ gone: boolean }>(
  'identity: user held',
  'select deleted_at is not null as gone from identity.users where id = $1 for key share',
)

const presetIds = new Set<number>(projectRoles.map((name) => roles[name].id))

/** @throws badRequest for a role that cannot be held in a project: unknown, or the system's (threats.md A08). */
export async function requireProjectRole(tx: Pick<Db, 'role'>, roleId: number): Promise<void> {
  const custom = !presetIds.has(roleId) && Number.isSafeInteger(roleId) && roleId > 0 && roleId < 2 ** 31
  const known = presetIds.has(roleId) || (custom && (await tx.role.count({ where: { id: roleId, preset: false } })) > 0)
  if (!known) throw problems.badRequest({ message: `invalid role ID: ${roleId}` })
}

const memberOf = (projectId: number) => ({
  nodeKind: 'project',
  projectId,
  principalKind: { in: ['user', 'group'] },
  roleId: { not: null },
  effect: 'allow',
})

/** The grants of identity.grants that are members of projects. Each takes the caller's transaction, so that its event is in it. */
export const memberGrants = {
  /** @throws conflict when the user or group is a member already; notFound when it was deleted meanwhile. */
  async add(
    tx: Sql,
    input: { projectId: number; kind: 'user' | 'group'; memberId: number; roleId: number; createdBy?: string },
  ): Promise<number> {
    const { projectId, kind, memberId, roleId, createdBy } = input
    await holdPrincipal(tx, kind, memberId)
    try {
      return (await tx.one(insertMember, [kind, memberId, roleId, projectId, createdBy ?? null]))!.id
    } catch (error) {
      if (!isUniqueViolation(error)) throw error
      throw problems.conflict(
        { message: `the ${kind} ${memberId} is a member of the project already` },
        { cause: error },
      )
    }
  },

  /** A member of this project; null for an id of another project's (threats.md R2). */
  async find(tx: Tx, projectId: number, id: number): Promise<MemberFacts | null> {
    const [member] = await tx.$queryRaw<MemberFacts[]>`
      select ${columns} from ${from} where ${ofProject(projectId)} and g.id = ${id}::int`
    return member ?? null
  },

  /**
   * A page of the members of a project by name, of users and groups alike, and how many there are. `name`: only those that are called so;
   * the total is of all nevertheless, as Harbor's is.
   */
  async list(
    db: Pick<Database, 'prisma' | 'lists'>,
    projectId: number,
    { page, name }: { page: Page; name?: string },
  ): Promise<{ total: number; members: MemberFacts[] }> {
    const found = name === undefined ? [] : [Prisma.sql`${called} = ${name}`]
    const { total, rows } = await listKept<MemberFacts>(db, {
      columns,
      from,
      where: [ofProject(projectId), ...found],
      order: [called, Prisma.sql`g.id`].map((column) => ({ column, descending: false })),
      page,
      tables: ['identity.grants', 'identity.users', 'identity.groups'],
    })
    if (name === undefined) return { total, members: rows }
    const [all] = await db.prisma.$queryRaw<
      [{ total: bigint }]
    >`select count(*) as total from ${from} where ${ofProject(projectId)}`
    return { total: Number(all.total), members: rows }
  },

  async setRole(tx: Tx, projectId: number, id: number, roleId: number): Promise<boolean> {
    const { count } = await tx.grant.updateMany({ where: { ...memberOf(projectId), id }, data: { roleId } })
    return count > 0
  },

  async remove(tx: Tx, projectId: number, id: number): Promise<boolean> {
    const { count } = await tx.grant.deleteMany({ where: { ...memberOf(projectId), id } })
    return count > 0
  },

  /** How many members hold each role, by role id. */
  async counts(tx: Tx, projectId: number): Promise<Map<number, number>> {
    const rows = await tx.grant.groupBy({ by: ['roleId'], where: memberOf(projectId), _count: { _all: true } })
    return new Map(rows.map((row) => [row.roleId!, row._count._all]))
  },
}

const membersOfProjects = statement<{ id: number; members: number }>(
  'members of projects',
  `select project_id as id, count(*)::int as members from identity.grants
    where project_id = any($1::int[]) and node_kind = 'project' and principal_kind in ('user', 'group')
      and role_id is not null and effect = 'allow'
    group by project_id`,
)

/** How many members each of these projects has; one that has none is missing. */
export async function countMembers(sql: Sql, projectIds: readonly number[]): Promise<Map<number, number>> {
  const rows = await sql.rows(membersOfProjects, [projectIds])
  return new Map(rows.map(({ id, members }) => [id, members]))
}

/** Until the transaction ends nobody deletes the user or group, which would leave this grant behind for nobody (R8). */
async function holdPrincipal(tx: Sql, kind: 'user' | 'group', id: number): Promise<void> {
  if (kind === 'group') {
    if (!(await tx.one(holdGroup, [id]))) throw problems.notFound({ resource: 'user group', id })
    return
  }
  // A user's row never goes.
  if ((await tx.one(holdUser, [id]))?.gone) throw problems.notFound({ resource: 'user', id })
}

/** Takes back everything that identity keeps about a project, in the transaction that deletes it: grants and robots. */
export async function forgetProject(tx: Tx, projectId: number): Promise<void> {
  await tx.grant.deleteMany({ where: { projectId } })
  await tx.robot.updateMany({ where: { projectId, deletedAt: null }, data: { nameKey: null, deletedAt: new Date() } })
}

// Subqueries, not joins: to join a project's few members with all users, the planner would read all users.
const called = Prisma.sql`coalesce(case g.principal_kind
  when 'user' then (select u.username from identity.users u where u.id = g.principal_id)
  else (select o.name from identity.groups o where o.id = g.principal_id) end, '')`
const columns = Prisma.sql`
  g.id, g.project_id as "projectId", g.principal_kind as kind, g.principal_id as "memberId", ${called} as name, g.role_id as "roleId",
  g.created_at as "createdAt", g.updated_at as "updatedAt"`
const from = Prisma.sql`identity.grants g`
const ofProject = (id: number) => Prisma.sql`
  g.node_kind = 'project' and g.project_id = ${id}::int and g.principal_kind in ('user', 'group')
  and g.role_id is not null and g.effect = 'allow'`
