import { problems } from '@haven/errors'
import {
  findLdapGroup,
  findLdapGroups,
  findLdapUsers,
  importLdapUsers,
  isDn,
  ldapDirectoryOf,
  listLdapUsers,
  pingLdap,
  type LdapDirectory,
  type LdapPerson,
} from '@haven/identity'
import type { BodyOf, HarborSchemas } from '@haven/proto'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'

/** Names in one import. */
const MAX_IMPORT = 1_000

export const ldapHandlers: Handlers = {
  /** Always answers 200: what is wrong with the directory is what was asked for. */
  async pingLdap({ body }, deps) {
    const server = serverToTry(ldapDirectoryOf(await deps.settings.read()), body ?? {})
    try {
      await pingLdap(deps.ldap, server)
      return ok({ success: true })
    } catch (error) {
      if (!problems.directoryFailed.is(error)) throw error
      return ok({ message: error.message })
    }
  },

  async searchLdapUser({ query }, deps) {
    const directory = await requireDirectory(deps)
    const { username } = query
    if (!username) return ok((await listLdapUsers(deps.ldap, directory)).map(presentPerson))
    const found = (await findLdapUsers(deps.ldap, directory, [username])).get(username)
    return ok(found ? [presentPerson(found)] : [])
  },

  /** Imports whom it can; 404 lists the others. */
  async importLdapUser({ body, caller }, deps) {
    const directory = await requireDirectory(deps)
    const names = body.ldap_uid_list ?? []
    if (names.length > MAX_IMPORT) throw problems.badRequest({ message: `more than ${MAX_IMPORT} names at once` })
    const failed = await importLdapUsers(deps, caller.source, deps.ldap, directory, names)
    return failed.length === 0 ? ok() : { status: 404, body: failed }
  },

  async searchLdapGroup({ query }, deps) {
    const directory = await requireDirectory(deps)
    const { groupname: name = '', groupdn: dn = '' } = query
    if (name === '' && dn !== '' && !isDn(dn)) throw problems.badRequest({ message: `invalid DN: ${dn}` })
    const byDn = name === '' && dn !== ''
    const groups = byDn
      ? [await findLdapGroup(deps.ldap, directory, dn)]
      : await findLdapGroups(deps.ldap, directory, name)
    const found = groups.filter((group) => group !== null)
    if (found.length === 0) throw problems.notFound({ message: 'the directory has no such group' })
    return ok(
      found.map((group): HarborSchemas['UserGroup'] => ({
        group_name: group.name,
        group_type: 1,
        ldap_group_dn: group.dn,
      })),
    )
  },
}

/** The directory of the settings; null where there is none. */
export async function configuredDirectory({ settings }: Pick<CoreContext, 'settings'>): Promise<LdapDirectory | null> {
  const directory = ldapDirectoryOf(await settings.read())
  return directory.url === '' || directory.baseDn === '' ? null : directory
}

async function requireDirectory(deps: CoreContext): Promise<LdapDirectory> {
  const directory = await configuredDirectory(deps)
  if (!directory) throw problems.preconditionFailed({ message: 'LDAP is not configured' })
  return directory
}

const presentPerson = ({ username, realname, email }: LdapPerson): HarborSchemas['LdapUser'] => ({
  username,
  realname,
  ...(email !== null && { email }),
})

/**
 * What the request leaves out is as it is stored, but the stored password goes only where it was given for: to this server, for this
 * search DN (threats.md A92).
 * @throws badRequest
 */
function serverToTry(stored: LdapDirectory, given: NonNullable<BodyOf<'pingLdap'>>): LdapDirectory {
  const url = given.ldap_url || stored.url
  const searchDn = given.ldap_search_dn || stored.searchDn
  if (url === '') throw problems.badRequest({ message: 'ldap_url is missing' })
  const elsewhere = url !== stored.url || searchDn !== stored.searchDn
  if (elsewhere && !given.ldap_search_password && stored.searchPassword !== '' && searchDn !== '') {
    throw problems.badRequest({ message: 'another ldap_url or ldap_search_dn needs its ldap_search_password' })
  }
  return {
    ...stored,
    url,
    searchDn,
    searchPassword: given.ldap_search_password || (elsewhere ? '' : stored.searchPassword),
    timeoutSeconds: given.ldap_connection_timeout || stored.timeoutSeconds,
    verifyCertificate: given.ldap_verify_cert ?? stored.verifyCertificate,
  }
}
