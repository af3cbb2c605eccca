import { problems } from '@haven/errors'
import type { SettingValues } from '@haven/settings'
import {
  AndFilter,
  EqualityFilter,
  FilterParser,
  InvalidDNSyntaxError,
  NoSuchObjectError,
  PresenceFilter,
  ResultCodeError,
  SizeLimitExceededError,
  SubstringFilter,
  type Client,
  type Entry,
  type Filter,
} from 'ldapts'
import { requireEmail } from '../names.ts'
import { canonicalDn, isDn } from './dn.ts'
import type { LdapClient, LdapServer } from './ldap-connection.ts'

/** An LDAP or Active Directory server, and what to look for in it. */
export type LdapDirectory = LdapServer & {
  readonly baseDn: string
  /** Whom the directory's people must match; empty: everybody. */
  readonly filter: string
  /** The attribute that people type as their name. */
  readonly uid: string
  readonly scope: number
  readonly groups: {
    readonly baseDn: string
    /** Empty: groups are not read. */
    readonly filter: string
    readonly nameAttribute: string
    readonly scope: number
    readonly adminDn: string
    /** Of a person: the DNs of the groups that they are in. */
    readonly membershipAttribute: string
  }
}

export type LdapPerson = {
  readonly username: string
  readonly realname: string
  /** Null where there is none that looks like one. */
  readonly email: string | null
}

export type LdapGroup = { readonly dn: string; readonly name: string }

/** What the settings say. */
export const ldapDirectoryOf = (values: SettingValues): LdapDirectory => ({
  url: values.ldap_url,
  searchDn: values.ldap_search_dn,
  searchPassword: values.ldap_search_password,
  timeoutSeconds: values.ldap_timeout,
  verifyCertificate: values.ldap_verify_cert,
  baseDn: values.ldap_base_dn,
  filter: values.ldap_filter,
  uid: values.ldap_uid,
  scope: values.ldap_scope,
  groups: {
    baseDn: values.ldap_group_base_dn || values.ldap_base_dn,
    filter: values.ldap_group_search_filter,
    nameAttribute: values.ldap_group_attribute_name || 'cn',
    scope: values.ldap_group_search_scope,
    adminDn: values.ldap_group_admin_dn,
    membershipAttribute: values.ldap_group_membership_attribute,
  },
})

/** The directory that people sign in by; null where they do not. */
export const signInDirectory = (values: SettingValues): LdapDirectory | null =>
  values.auth_mode === 'ldap_auth' ? ldapDirectoryOf(values) : null

/** Whether the server answers and lets the search DN in. @throws directoryFailed */
export const pingLdap = (ldap: LdapClient, server: LdapServer): Promise<void> =>
  ldap.talkAnyway(server, async () => undefined)

/**
 * Who has this name and password, and the groups that the directory puts them into. Null: nobody, more than one, or a wrong password.
 * @throws directoryFailed
 */
export async function proveLdapUser(
  ldap: LdapClient,
  directory: LdapDirectory,
  name: string,
  password: string,
): Promise<{ person: LdapPerson; groups: LdapGroup[] } | null> {
  // A bind without a password is answered "success": it is an anonymous one (RFC 4513, §5.1.2; threats.md A65).
  if (name === '' || password === '') return null
  return ldap.talk(directory, async ({ client, becomeSearcher }) => {
    const entry = await findEntry(client, directory, name)
    const person = entry && personOf(entry, directory)
    if (!entry || !person) return null
    try {
      await client.bind(entry.dn, password)
    } catch (error) {
      if (error instanceof ResultCodeError && !trouble.has(error.code)) return null
      throw error
    }
    await becomeSearcher()
    const { membershipAttribute } = directory.groups
    return { person, groups: await readGroups(client, directory, valuesOf(entry, membershipAttribute)) }
  })
}

// Result codes that say nothing about the password: operations error, protocol error, busy, unavailable.
const trouble = new Set([1, 2, 51, 52])

/** People by their whole name, null for who is not found once; in one conversation. @throws directoryFailed */
export const findLdapUsers = (
  ldap: LdapClient,
  directory: LdapDirectory,
  names: readonly string[],
): Promise<Map<string, LdapPerson | null>> =>
  ldap.talk(directory, async ({ client }) => {
    const found = new Map<string, LdapPerson | null>()
    for (const name of new Set(names)) {
      const entry = name === '' ? null : await findEntry(client, directory, name)
      found.set(name, entry && personOf(entry, directory))
    }
    return found
  })

/** Everybody, as far as the first ten thousand. @throws directoryFailed */
export const listLdapUsers = (ldap: LdapClient, directory: LdapDirectory): Promise<LdapPerson[]> =>
  ldap.talk(directory, async ({ client }) => {
    const { baseDn, scope, uid } = directory
    const filter = both(directory.filter, 'ldap_filter', new PresenceFilter({ attribute: uid }))
    const entries = await readAll(client, baseDn, scope, filter, personAttributes(directory))
    return entries.flatMap((entry) => personOf(entry, directory) ?? [])
  })

/** The group with this DN, if it is one by the filter and below the base DN. @throws badRequest for no DN; directoryFailed */
export function findLdapGroup(ldap: LdapClient, directory: LdapDirectory, dn: string): Promise<LdapGroup | null> {
  const canonical = canonicalDn(dn)
  return ldap.talk(directory, ({ client }) => readGroup(client, directory, canonical))
}

/** Groups by a part of their name, as far as the first ten thousand. @throws directoryFailed */
export const findLdapGroups = (ldap: LdapClient, directory: LdapDirectory, part: string): Promise<LdapGroup[]> =>
  ldap.talk(directory, async ({ client }) => {
    const { baseDn, scope, filter, nameAttribute: attribute } = directory.groups
    const named = part === '' ? new PresenceFilter({ attribute }) : new SubstringFilter({ attribute, any: [part] })
    const entries = await readAll(client, baseDn, scope, both(filter, 'ldap_group_search_filter', named), [attribute])
    return entries.flatMap((entry) => groupOf(entry, directory) ?? [])
  })

const scopes = ['base', 'one', 'sub'] as const
const pageSize = 1_000
const maxEntries = 10_000

async function findEntry(client: Client, directory: LdapDirectory, name: string): Promise<Entry | null> {
  const { baseDn, scope, uid, filter } = directory
  try {
    const { searchEntries } = await client.search(baseDn, {
      scope: scopes[scope] ?? 'sub',
      // As a value, not as text of a filter: nothing in a name means anything (RFC 4515; threats.md A65).
      filter: both(filter, 'ldap_filter', new EqualityFilter({ attribute: uid, value: name })),
      attributes: personAttributes(directory),
      sizeLimit: 2,
    })
    return searchEntries.length === 1 ? searchEntries[0]! : null
  } catch (error) {
    if (error instanceof SizeLimitExceededError) return null
    throw error
  }
}

async function readAll(
  client: Client,
  baseDn: string,
  scope: number,
  filter: Filter,
  attributes: string[],
): Promise<Entry[]> {
  const entries: Entry[] = []
  const options = { scope: scopes[scope] ?? 'sub', filter, attributes, paged: { pageSize } } as const
  for await (const page of client.searchPaginated(baseDn, options)) {
    entries.push(...page.searchEntries)
    if (entries.length >= maxEntries) break
  }
  return entries.slice(0, maxEntries)
}

const groupsAtATime = 5

/** Where no filter says what a group is, none is read, as in Harbor. The administrators' group needs no entry. */
async function readGroups(client: Client, directory: LdapDirectory, dns: readonly string[]): Promise<LdapGroup[]> {
  if (directory.groups.filter === '') return []
  const wanted = [...new Set(dns.filter(isDn).map(canonicalDn))]
  const groups: LdapGroup[] = []
  for (let at = 0; at < wanted.length; at += groupsAtATime) {
    const read = await Promise.all(wanted.slice(at, at + groupsAtATime).map((dn) => readGroup(client, directory, dn)))
    groups.push(...read.filter((group) => group !== null))
  }
  const adminDn = isDn(directory.groups.adminDn) ? canonicalDn(directory.groups.adminDn) : null
  if (adminDn !== null && wanted.includes(adminDn) && !groups.some((group) => group.dn === adminDn)) {
    groups.push({ dn: adminDn, name: groupName(adminDn) })
  }
  return groups
}

async function readGroup(client: Client, directory: LdapDirectory, dn: string): Promise<LdapGroup | null> {
  const { baseDn, filter, nameAttribute } = directory.groups
  if (isDn(baseDn) && dn !== canonicalDn(baseDn) && !dn.endsWith(`,${canonicalDn(baseDn)}`)) return null
  try {
    const { searchEntries } = await client.search(dn, {
      scope: 'base',
      filter: both(filter, 'ldap_group_search_filter', new PresenceFilter({ attribute: nameAttribute })),
      attributes: [nameAttribute],
    })
    return searchEntries[0] ? groupOf(searchEntries[0], directory) : null
  } catch (error) {
    if (error instanceof NoSuchObjectError || error instanceof InvalidDNSyntaxError) return null
    throw error
  }
}

const personAttributes = ({ uid, groups }: LdapDirectory) => [
  ...new Set([uid, 'uid', 'cn', 'mail', 'email', groups.membershipAttribute].filter((name) => name !== '')),
]

function personOf(entry: Entry, { uid }: LdapDirectory): LdapPerson | null {
  const first = (attribute: string) => valuesOf(entry, attribute)[0] ?? ''
  const username = first(uid)
  if (username === '') return null
  const realname = first(uid.toLowerCase() === 'cn' ? 'uid' : 'cn') || username
  const emails = [first('mail'), first('email'), username.includes('@') ? username : '']
  return { username, realname, email: emails.find(isEmail) ?? null }
}

function groupOf(entry: Entry, { groups }: LdapDirectory): LdapGroup | null {
  const name = groupName(valuesOf(entry, groups.nameAttribute)[0] ?? '')
  return name !== '' && isDn(entry.dn) ? { dn: canonicalDn(entry.dn), name } : null
}

/** As a group may be called here. */
const groupName = (text: string) =>
  text
    .replaceAll(/\p{Cc}/gu, ' ')
    .trim()
    .slice(0, 255)

function isEmail(text: string): boolean {
  try {
    requireEmail(text)
    return true
  } catch (error) {
    if (problems.badRequest.is(error)) return false
    throw error
  }
}

/** Servers spell the names of attributes as their schema does, whatever was asked for. */
function valuesOf(entry: Entry, attribute: string): string[] {
  const name = Object.keys(entry).find((known) => known.toLowerCase() === attribute.toLowerCase())
  const value = name === undefined || name === 'dn' ? [] : (entry[name] ?? [])
  return (Array.isArray(value) ? value : [value]).map((one) => (typeof one === 'string' ? one : one.toString('utf8')))
}

/** A filter from the settings, whose outer parentheses may be missing, and one of ours. */
function both(configured: string, setting: string, own: Filter): Filter {
  const text = configured.trim()
  if (text === '') return own
  try {
    const parsed = FilterParser.parseString(text.startsWith('(') ? text : `(${text})`)
    return new AndFilter({ filters: [parsed, own] })
  } catch (cause) {
    throw problems.directoryFailed({ reason: `${setting} is no filter` }, { cause })
  }
}
