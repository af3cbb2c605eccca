import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import type { EventSource } from '@haven/events'
import { findLdapUsers, proveLdapUser, type LdapDirectory, type LdapPerson } from './directories/ldap.ts'
import type { LdapClient } from './directories/ldap-connection.ts'
import { ensureGroups, syncMemberships } from './groups.ts'
import { nameKey } from './names.ts'
import { onboard, type Account } from './onboard.ts'

const provider = 'ldap'

/**
 * Asks the directory for who has this name and password. The account is made at the first time; the e-mail address and the groups are
 * the directory's at each. Null: nobody, a wrong password, or somebody whose name another account has.
 * @throws serviceUnavailable when the directory cannot be asked; why is in its cause, and not for whoever signs in.
 */
export async function signInByLdap(
  db: Database,
  ldap: LdapClient,
  directory: LdapDirectory,
  { name, password, address }: { name: string; password: string; address: string },
): Promise<Account | null> {
  const source: EventSource = { principal: { kind: 'service', name: provider }, address }
  const proved = await proveLdapUser(ldap, directory, name, password).catch((cause: unknown) => {
    if (!problems.directoryFailed.is(cause)) throw cause
    const message = 'the directory of accounts cannot be asked at the moment'
    throw problems.serviceUnavailable({ message }, { cause })
  })
  if (!proved) return null
  let account: Account
  try {
    account = await onboardLdapPerson(db, source, proved.person)
  } catch (error) {
    if (problems.conflict.is(error) || problems.badRequest.is(error)) return null
    throw error
  }
  await syncMemberships(db, account.id, provider, await ensureGroups({ db }, source, provider, proved.groups))
  return account
}

/** The account of somebody whom the directory knows. @throws conflict, badRequest */
export const onboardLdapPerson = (db: Database, source: EventSource, person: LdapPerson): Promise<Account> =>
  onboard(db, source, { provider, subject: nameKey(person.username), ...person, comment: 'from LDAP.' })

/**
 * Makes accounts for people of the directory; answers which of them could not be, and why.
 * @throws directoryFailed
 */
export async function importLdapUsers(
  { db }: { db: Database },
  source: EventSource,
  ldap: LdapClient,
  directory: LdapDirectory,
  names: readonly string[],
): Promise<{ uid: string; error: string }[]> {
  const failed: { uid: string; error: string }[] = []
  const people = await findLdapUsers(ldap, directory, names)
  for (const [uid, person] of people) {
    if (!person) {
      failed.push({ uid, error: 'the directory has nobody, or several, of this name' })
      continue
    }
    try {
      await onboardLdapPerson(db, source, person)
    } catch (error) {
      if (!problems.conflict.is(error) && !problems.badRequest.is(error)) throw error
      failed.push({ uid, error: error.message })
    }
  }
  return failed
}
