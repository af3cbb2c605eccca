import type { Page } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { memberGrants, requireProjectRole, type MemberFacts } from '@haven/identity'
import { MemberAddedSchema, MemberKind, MemberRemovedSchema, MemberUpdatedSchema } from '@haven/proto/events'
import type { ProjectDeps } from './deps.ts'
import type { ProjectNode } from './directory.ts'
import { isId } from './is-id.ts'

type Target = Pick<ProjectNode, 'id' | 'name'>
type Deps = Pick<ProjectDeps, 'db'>

/** Who becomes a member: found before, by whoever knows users and groups. */
export type NewMember = { kind: 'user' | 'group'; memberId: number; name: string; roleId: number }

/**
 * Gives a user or group a role in a project. Answers the membership's id.
 * @throws badRequest for a role that cannot be held in a project; conflict for a member.
 */
export async function addMember(
  { db }: Deps,
  source: EventSource,
  project: Target,
  member: NewMember,
): Promise<number> {
  await requireProjectRole(db.prisma, member.roleId)
  return db.transaction(async (tx) => {
    const { name: _, ...grant } = member
    const id = await memberGrants.add(tx, {
      ...grant,
      projectId: project.id,
      ...(source.principal.kind !== 'anonymous' && { createdBy: source.principal.name }),
    })
    await emit(tx, MemberAddedSchema, source, { membership: membership(project, { ...member, id }) })
    return id
  })
}

/**
 * Gives a member another role.
 * @throws badRequest for a role that cannot be held in a project; notFound for an id that is none of this project's.
 */
export async function changeMember(
  { db }: Deps,
  source: EventSource,
  project: Target,
  id: number,
  roleId: number,
): Promise<void> {
  await db.prisma.$transaction(async (tx) => {
    await requireProjectRole(tx, roleId)
    const before = await requireMember(tx, project, id)
    if (before.roleId === roleId) return
    await memberGrants.setRole(tx, project.id, id, roleId)
    await emit(tx, MemberUpdatedSchema, source, {
      membership: membership(project, { ...before, roleId }),
      previousRoleId: before.roleId,
    })
  })
}

/** Takes a member out. @throws notFound for an id that is none of this project's. */
export async function removeMember({ db }: Deps, source: EventSource, project: Target, id: number): Promise<void> {
  await db.prisma.$transaction(async (tx) => {
    const member = await requireMember(tx, project, id)
    await memberGrants.remove(tx, project.id, id)
    await emit(tx, MemberRemovedSchema, source, { membership: membership(project, member) })
  })
}

/** A member of this project and of no other (threats.md R2). @throws notFound */
export const findMember = ({ db }: Deps, project: Target, id: number): Promise<MemberFacts> =>
  requireMember(db.prisma, project, id)

/** A page of the members by name, and how many there are. `name`: those of the page are called so, the total is of all. */
export const listMembers = (
  { db }: Deps,
  project: Target,
  query: { page: Page; name?: string },
): Promise<{ total: number; members: MemberFacts[] }> => memberGrants.list(db, project.id, query)

/** How many members hold each role, by the role's id. */
export const countMembers = ({ db }: Deps, project: Target): Promise<Map<number, number>> =>
  memberGrants.counts(db.prisma, project.id)

async function requireMember(
  tx: Parameters<typeof memberGrants.find>[0],
  project: Target,
  id: number,
): Promise<MemberFacts> {
  const member = isId(id) ? await memberGrants.find(tx, project.id, id) : null
  if (member) return member
  throw problems.notFound({
    message: `the project member is not found, project id ${project.id}, member id ${id}`,
  })
}

const membership = (project: Target, member: NewMember & { id: number }) => ({
  id: BigInt(member.id),
  project: { id: BigInt(project.id), name: project.name },
  kind: member.kind === 'user' ? MemberKind.USER : MemberKind.GROUP,
  memberId: BigInt(member.memberId),
  memberName: member.name,
  roleId: member.roleId,
})
