import type { Database, Prisma } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { ConfigurationChangedSchema } from '@haven/proto/events'
import { isSettingName, keys, type SettingName, type SettingValues } from './keys.ts'
import { stored, type Sealer, type Settings } from './settings.ts'

export type ChangeDeps = { db: Database; settings: Settings; sealer: Sealer }

/**
 * The values that a request names, checked one by one and together. Names that no setting has are left out, as in Harbor.
 * @throws badRequest that names the item
 */
export function parseSettings(given: Readonly<Record<string, unknown>>, now: SettingValues): Partial<SettingValues> {
  const change: Partial<Record<SettingName, unknown>> = {}
  for (const [name, value] of Object.entries(given)) {
    if (!isSettingName(name) || value === null || value === undefined) continue
    const parsed = keys[name].kind.parse(value)
    if (parsed === null) throw problems.badRequest({ message: `invalid value, item name ${name}` })
    change[name] = parsed
  }
  const parsed = change as Partial<SettingValues>
  requireTogether({ ...now, ...parsed })
  requireSecrets(parsed, now)
  return parsed
}

/** The secrets of other servers, by the setting that says where they are sent. */
const secretFor = {
  ldap_url: 'ldap_search_password',
  oidc_endpoint: 'oidc_client_secret',
  uaa_endpoint: 'uaa_client_secret',
} as const satisfies Partial<Record<SettingName, SettingName>>

/** A stored secret is for the address that it was stored with (threats.md R12): whoever changes that gives the secret again, or ''. */
function requireSecrets(change: Partial<SettingValues>, now: SettingValues) {
  for (const [address, secret] of Object.entries(secretFor) as [keyof typeof secretFor, SettingName][]) {
    const moved = change[address] !== undefined && change[address] !== now[address]
    if (moved && now[secret] !== '' && change[secret] === undefined) {
      throw problems.badRequest({ message: `another ${address} needs its ${secret}, item name ${secret}` })
    }
  }
}

function requireTogether(after: SettingValues) {
  if (after.skip_audit_log_database && after.audit_log_forward_endpoint === '') {
    throw problems.badRequest({
      message: 'audit_log_forward_endpoint must be set before skip_audit_log_database is switched on',
    })
  }
  if (
    after.ldap_group_search_filter !== '' &&
    (after.ldap_group_attribute_name === '' || after.ldap_group_membership_attribute === '')
  ) {
    throw problems.badRequest({
      message:
        'with ldap_group_search_filter, ldap_group_attribute_name and ldap_group_membership_attribute must be set',
    })
  }
}

/** Writes values that `parseSettings` accepted, and says which keys changed; the next request of this process sees them. */
export async function changeSettings(
  { db, settings, sealer }: ChangeDeps,
  source: EventSource,
  change: Partial<SettingValues>,
): Promise<void> {
  const entries = Object.entries(change) as [SettingName, Prisma.InputJsonValue][]
  if (entries.length === 0) return
  await db.prisma.$transaction(async (tx) => {
    for (const [key, value] of entries) {
      const kept = stored(key, value, sealer) as Prisma.InputJsonValue
      const updatedBy = 'name' in source.principal ? source.principal.name : null
      await tx.setting.upsert({
        where: { key },
        create: { key, value: kept, updatedBy },
        update: { value: kept, updatedBy },
      })
    }
    await emit(tx, ConfigurationChangedSchema, source, { keys: entries.map(([key]) => key) })
  })
  settings.forget()
}

/**
 * What the environment says wins at each start. Harbor's name for it is CONFIG_OVERWRITE_JSON.
 * @param setting the variable that the text comes from, for the message.
 * @throws settingsInvalid: no JSON object, a key that does not exist, or a value that it cannot have.
 */
export async function overwriteSettings(deps: ChangeDeps, setting: string, json: string): Promise<void> {
  const given = parseObject(json)
  if (given === null) throw problems.settingsInvalid({ message: `${setting} is no JSON object` })
  const unknown = Object.keys(given).filter((name) => !isSettingName(name))
  if (unknown.length > 0)
    throw problems.settingsInvalid({ message: `${setting} names ${unknown.join(', ')}, which no key is called` })
  try {
    await changeSettings(
      deps,
      { principal: { kind: 'service', name: 'core' } },
      parseSettings(given, await deps.settings.read()),
    )
  } catch (error) {
    if (problems.badRequest.is(error)) throw problems.settingsInvalid({ message: `${setting}: ${error.message}` })
    throw error
  }
}

function parseObject(json: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null
  } catch {
    return null
  }
}
