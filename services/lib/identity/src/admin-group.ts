import type { SettingValues } from '@haven/settings'
import { canonicalDn, isDn } from './directories/dn.ts'

/** The group whose members are system administrators while they are in it: of one provider, by that provider's own name for it (A12). */
export type AdminGroup = { readonly provider: string; readonly externalId: string }

/** What the settings say. A DN that is none makes nobody an administrator. */
export function adminGroupOf(values: SettingValues): AdminGroup | null {
  const { auth_mode: mode, ldap_group_admin_dn: dn, oidc_admin_group: name } = values
  if (mode === 'ldap_auth' && isDn(dn)) return { provider: 'ldap', externalId: canonicalDn(dn) }
  if (mode === 'oidc_auth' && name !== '') return { provider: 'oidc', externalId: name }
  return null
}
