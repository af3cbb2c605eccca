import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import type { Database } from '@haven/db'
import { Settings } from '@haven/settings'
import { sealerOf } from '../../installation.ts'
import { failure, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'
import { isSetting } from './look-at-settings.ts'

/** Whether the names of other machines in the settings, of the environment and of the configuration, have addresses. */
export async function lookAtNames(ground: Ground): Promise<Look[]> {
  const { env, db, databaseUrl, redisUrl, shared } = ground
  const hosts = new Map<string, Set<string>>()
  const add = (setting: string, value = '') => {
    const host = hostOf(value)
    if (host === null || isIP(host) !== 0 || host === 'localhost') return
    hosts.set(host, (hosts.get(host) ?? new Set()).add(setting))
  }
  const addresses = Object.keys(env).filter((name) => isSetting(name) && /_(?:URL|ENDPOINT)$/.test(name))
  for (const name of addresses) add(name, env[name])
  add('DATABASE_URL', databaseUrl ?? '')
  add('REDIS_URL', redisUrl ?? '')
  for (const [name, value] of await configured(db, shared.HAVEN_ENCRYPTION_KEY)) add(name, value)
  const findings = await Promise.all([...hosts].map(([host, settings]) => unresolved(host, [...settings])))
  return [{ at: 'names', said: `${hosts.size} are looked up`, findings: findings.flat() }]
}

/** `https://host/…`, `host:port`, `[::1]:port`. */
function hostOf(value: string): string | null {
  const text = value.includes('://') ? value.replace(/^ldap\+starttls:/, 'ldap:') : `none://${value}`
  const host = URL.parse(text)?.hostname.replace(/^\[|\]$/g, '') ?? ''
  return host === '' ? null : host
}

async function unresolved(host: string, settings: readonly string[]): Promise<Finding[]> {
  try {
    await lookup(host)
    return []
  } catch (error) {
    const what = `the name ${host} of ${settings.join(' and ')} has no address (${(error as { code?: string }).code})`
    return [failure('names.unknown', what, 'correct the name, or the name server of this machine')]
  }
}

/** What administrators set while it runs. Nothing where the database cannot be read: that is told elsewhere. */
async function configured(db: Database | null, key: string | undefined): Promise<[string, string][]> {
  if (db === null || key === undefined) return []
  try {
    using settings = new Settings(db, sealerOf(key))
    const values = await settings.read()
    return [
      ...(values.auth_mode === 'ldap_auth' ? [['ldap_url', values.ldap_url] as [string, string]] : []),
      ...(values.auth_mode === 'oidc_auth' ? [['oidc_endpoint', values.oidc_endpoint] as [string, string]] : []),
      ['audit_log_forward_endpoint', values.audit_log_forward_endpoint],
    ]
  } catch {
    return []
  }
}
