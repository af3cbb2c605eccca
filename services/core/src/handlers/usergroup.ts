import { problems } from '@haven/errors'
import { createGroup, deleteGroup, findGroup, findLdapGroup, listGroups, renameGroup } from '@haven/identity'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { configuredDirectory } from './ldap.ts'
import { presentGroup, presentGroupBriefly, providerOf, providerOfMode } from '../present/group.ts'

export const usergroupHandlers: Handlers = {
  async listUserGroups({ query, at }, deps) {
    const provider = providerOfMode((await deps.settings.read()).auth_mode)
    const { total, groups } = await listGroups(deps, {
      provider,
      name: query.group_name,
      dn: provider === 'ldap' ? query.ldap_group_dn || undefined : undefined,
      page: pageOf(query),
    })
    return listAnswer(
      at,
      query,
      total,
      groups.map((group) => ({ id: group.id, ...presentGroup(group) })),
    )
  },

  async createUserGroup({ body, caller }, deps) {
    const { group_name: name = '', group_type: type = 0, ldap_group_dn: dn = '' } = body ?? {}
    const provider = providerOf(type)
    if (provider === 'ldap') await requireInDirectory(deps, dn)
    const id = await createGroup(deps, caller.source, { provider, name, dn })
    return created(`/api/v2.0/usergroups/${id}`)
  },

  async searchUserGroups({ query, at }, deps) {
    const { total, groups } = await listGroups(deps, { name: query.groupname, page: pageOf(query) })
    return listAnswer(at, query, total, groups.map(presentGroupBriefly))
  },

  async getUserGroup({ path }, deps) {
    const group = await findGroup(deps, path.group_id)
    if (!group) throw problems.notFound({ resource: 'user group', id: path.group_id })
    return ok(presentGroup(group))
  },

  async updateUserGroup({ path, body, caller }, deps) {
    const { group_name: name = '' } = body ?? {}
    await renameGroup(deps, caller.source, path.group_id, name)
    return ok()
  },

  async deleteUserGroup({ path, caller }, deps) {
    await deleteGroup(deps, caller.source, path.group_id)
    return ok()
  },
}

/** @throws badRequest for a DN that is none or that no group of the directory has */
async function requireInDirectory(deps: CoreContext, dn: string): Promise<void> {
  const directory = await configuredDirectory(deps)
  if (!directory || !(await findLdapGroup(deps.ldap, directory, dn))) {
    throw problems.badRequest({ message: `LDAP Group DN is not found: DN:${dn}` })
  }
}
