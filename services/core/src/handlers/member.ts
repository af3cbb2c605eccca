import { problems } from '@haven/errors'
import {
  decide,
  ensureGroup,
  findGroup,
  findGroupByDn,
  findGroupByName,
  findLdapGroup,
  findLdapUsers,
  findUser,
  findUserByName,
  onboardLdapPerson,
  permissionsOf,
  projectRoles,
  roles,
  signInDirectory,
  type GroupFacts,
} from '@haven/identity'
import {
  addMember,
  changeMember,
  findMember,
  listMembers,
  removeMember,
  type NewMember,
  type ProjectFacts,
} from '@haven/projects'
import type { BodyOf } from '@haven/proto'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { providerOf, providerOfMode } from '../present/group.ts'
import { presentMember } from '../present/member.ts'

export const memberHandlers: Handlers = {
  /** `entityname` is a whole name, and the count is of all members, as in Harbor. */
  async listProjectMembers({ project, query, at }, context) {
    const { total, members } = await listMembers(context, project, {
      page: pageOf(query),
      ...(query.entityname && { name: query.entityname }),
    })
    return listAnswer(at, query, total, members.map(presentMember))
  },

  async createProjectMember({ project, body, caller, at }, context) {
    const roleId = requireRole(body?.role_id)
    const who = await findWho(context, caller, body ?? {})
    await requireMayGive(caller, project, roleId)
    const id = await addMember(context, caller.source, project, { ...who, roleId }).catch((error: unknown) => {
      if (!problems.conflict.is(error)) throw error
      throw problems.conflict({ message: 'The project member specified already exist' })
    })
    context.authorities.forget()
    return created(`${at.path.replace(/\/$/, '')}/${id}`)
  },

  async getProjectMember({ project, path }, context) {
    return ok(presentMember(await findMember(context, project, path.mid)))
  },

  async updateProjectMember({ project, path, body, caller }, context) {
    const roleId = requireRole(body?.role_id)
    const member = await findMember(context, project, path.mid)
    await requireMayGive(caller, project, member.roleId)
    await requireMayGive(caller, project, roleId)
    await changeMember(context, caller.source, project, path.mid, roleId)
    context.authorities.forget()
    return ok()
  },

  async deleteProjectMember({ project, path, caller }, context) {
    const member = await findMember(context, project, path.mid)
    await requireMayGive(caller, project, member.roleId)
    await removeMember(context, caller.source, project, path.mid)
    context.authorities.forget()
    return ok()
  },
}

const givable = new Map(projectRoles.map((name) => [roles[name].id as number, name]))

function requireRole(roleId: number | undefined): number {
  if (roleId === undefined || !givable.has(roleId)) {
    throw problems.badRequest({ message: 'Failed to update project member, role is not in 1,2,3' })
  }
  return roleId
}

/** Nobody gives, changes or takes a role that holds more than he does himself in this project (threats.md A08). */
async function requireMayGive(caller: Caller, project: ProjectFacts, roleId: number): Promise<void> {
  const name = givable.get(roleId)
  const authority = await caller.authority()
  const on = { project }
  const holds = name && permissionsOf(name).every((permission) => decide(authority, { ...permission, on }).allowed)
  if (!holds) throw problems.forbidden({ message: 'a role that holds more than your own cannot be given or taken' })
}

type Who = Omit<NewMember, 'roleId'>

/** User id, then group id, then user name, then the group's DN, then its name: Harbor's order. */
async function findWho(
  context: CoreContext,
  caller: Caller,
  body: NonNullable<BodyOf<'createProjectMember'>>,
): Promise<Who> {
  const { member_user: user, member_group: group } = body
  if (user?.user_id) {
    const found = await findUser(context, user.user_id)
    if (!found) {
      throw problems.badRequest({ message: `Failed to get user ${user.user_id}: user ${user.user_id} not found` })
    }
    return { kind: 'user', memberId: found.id, name: found.username }
  }
  if (group?.id) {
    const found = await findGroup(context, group.id)
    if (!found) throw problems.badRequest({ message: `Group ${group.id} not found` })
    return asMember(found)
  }
  if (user?.username) {
    return findNamedUser(context, caller, user.username)
  }
  if (group?.ldap_group_dn) {
    return asMember(await findDirectoryGroup(context, caller, group.ldap_group_dn, group.group_name))
  }
  if (group?.group_name) return asMember(await findNamedGroup(context, caller, group.group_name, group.group_type))
  throw problems.badRequest({ message: 'at least one of member_user or member_group must be provided' })
}

const asMember = ({ id, name }: GroupFacts): Who => ({ kind: 'group', memberId: id, name })

/** Somebody of the directory who never signed in gets an account. */
async function findNamedUser(context: CoreContext, caller: Caller, username: string): Promise<Who> {
  const found = await findUserByName(context, username)
  if (found) return { kind: 'user', memberId: found.id, name: found.username }
  const directory = signInDirectory(await context.settings.read())
  const person = directory && (await findLdapUsers(context.ldap, directory, [username])).get(username)
  if (!person) throw problems.notFound({ message: `user ${username} is not found` })
  const account = await onboardLdapPerson(context.db, caller.source, person)
  return { kind: 'user', memberId: account.id, name: account.name }
}

/** A group of the directory is known, or becomes so by being made a member; then under the name that the request gives it. */
async function findDirectoryGroup(
  context: CoreContext,
  caller: Caller,
  dn: string,
  name: string | undefined,
): Promise<GroupFacts> {
  const directory = signInDirectory(await context.settings.read())
  if (!directory) throw problems.notFound({ message: `${dn} not found: not supported` })
  const known = await findGroupByDn(context, dn)
  if (known) return known
  const found = await findLdapGroup(context.ldap, directory, dn)
  if (!found) throw problems.notFound({ message: `${dn} not found` })
  return ensureGroup(context, caller.source, { provider: 'ldap', name: name || found.name, dn: found.dn })
}

/** Where a provider answers for its groups at sign-in only, a name that nobody has used yet becomes a group. */
async function findNamedGroup(
  context: CoreContext,
  caller: Caller,
  name: string,
  type: number | undefined,
): Promise<GroupFacts> {
  const found = await findGroupByName(context, name, type ? providerOf(type) : undefined)
  if (found) return found
  const provider = providerOfMode((await context.settings.read()).auth_mode)
  if (provider !== 'http' && provider !== 'oidc')
    throw problems.notFound({ message: `${name} not found: not supported` })
  return ensureGroup(context, caller.source, { provider, name })
}
