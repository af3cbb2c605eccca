import { bool, int, nonEmptyText, number, secret, text, textMap, word, type Kind } from './kinds.ts'

export type Key<T> = { readonly kind: Kind<T>; readonly default: T }

const key = <T>(kind: Kind<T>, initial: NoInfer<T>): Key<T> => ({ kind, default: initial })

/** Harbor stores durations as whole numbers of their unit, in these bounds. */
const span = int({ min: 1, max: 9_999_999_999 })
/** Bytes; -1: any amount. At most 1 PiB. */
const quota: Kind<number> = {
  parse(given) {
    const bytes = int({ min: -1, max: 1024 ** 5 }).parse(given)
    return bytes === 0 ? null : bytes
  },
}
/** 0: the entry itself, 1: one level below, 2: the whole tree. */
const ldapScope = number(0, 1, 2)

/**
 * What administrators change at `/api/v2.0/configurations`, by Harbor's names and with its defaults (scope "user" of its 112 keys;
 * what it calls "system" are settings of our processes, see each service's config.ts).
 */
export const keys = {
  auth_mode: key(word('db_auth', 'ldap_auth', 'uaa_auth', 'http_auth', 'oidc_auth'), 'db_auth'),
  primary_auth_mode: key(bool, false),
  ldap_base_dn: key(nonEmptyText, ''),
  ldap_filter: key(text, ''),
  /** Empty: ldap_base_dn. */
  ldap_group_base_dn: key(text, ''),
  /** Its members are administrators while they are in it. */
  ldap_group_admin_dn: key(text, ''),
  /** Empty: cn. */
  ldap_group_attribute_name: key(text, ''),
  /** Empty: groups are not read. */
  ldap_group_search_filter: key(text, ''),
  ldap_group_search_scope: key(ldapScope, 2),
  ldap_scope: key(ldapScope, 2),
  ldap_search_dn: key(text, ''),
  ldap_search_password: key(secret, ''),
  /** Seconds. */
  ldap_timeout: key(int(), 5),
  ldap_uid: key(nonEmptyText, 'cn'),
  /** ldap://, ldaps:// or, ours, ldap+starttls:// with a host. */
  ldap_url: key(nonEmptyText, ''),
  ldap_verify_cert: key(bool, true),
  ldap_group_membership_attribute: key(text, 'memberof'),
  ldap_group_attach_parallel: key(bool, false),
  project_creation_restriction: key(word('everyone', 'adminonly'), 'everyone'),
  read_only: key(bool, false),
  self_registration: key(bool, false),
  /** Minutes that a registry token lives. */
  token_expiration: key(span, 30),
  uaa_client_id: key(text, ''),
  uaa_client_secret: key(secret, ''),
  uaa_endpoint: key(text, ''),
  uaa_verify_cert: key(bool, false),
  http_authproxy_endpoint: key(text, ''),
  http_authproxy_tokenreview_endpoint: key(text, ''),
  http_authproxy_admin_groups: key(text, ''),
  http_authproxy_admin_usernames: key(text, ''),
  http_authproxy_verify_cert: key(bool, true),
  http_authproxy_skip_search: key(bool, false),
  http_authproxy_server_certificate: key(text, ''),
  oidc_name: key(text, ''),
  oidc_endpoint: key(text, ''),
  oidc_client_id: key(text, ''),
  oidc_client_secret: key(secret, ''),
  oidc_groups_claim: key(text, ''),
  oidc_admin_group: key(text, ''),
  oidc_group_filter: key(text, ''),
  oidc_scope: key(text, ''),
  oidc_user_claim: key(text, ''),
  oidc_verify_cert: key(bool, true),
  oidc_auto_onboard: key(bool, false),
  oidc_extra_redirect_parms: key(textMap, {}),
  oidc_logout: key(bool, false),
  /** Days; what the portal proposes. */
  robot_token_duration: key(span, 30),
  robot_name_prefix: key(nonEmptyText, 'robot$'),
  /** Whether webhooks are sent. */
  notification_enable: key(bool, true),
  quota_per_project_enable: key(bool, true),
  /** What a new project may hold. */
  storage_per_project: key(quota, -1),
  pull_time_update_disable: key(bool, false),
  pull_count_update_disable: key(bool, false),
  pull_audit_log_disable: key(bool, false),
  /** host:port of a syslog server; empty: none. */
  audit_log_forward_endpoint: key(text, ''),
  skip_audit_log_database: key(bool, false),
  scanner_skip_update_pulltime: key(bool, false),
  /** Comma list. */
  disabled_audit_log_event_types: key(text, ''),
  /** Minutes without a request after which a session ends. */
  session_timeout: key(span, 60),
  /** JSON text: message, type, closable, fromDate, toDate. */
  banner_message: key(text, ''),
} satisfies Record<string, Key<unknown>>

export type SettingName = keyof typeof keys
export type SettingValues = { readonly [K in SettingName]: (typeof keys)[K] extends Key<infer T> ? T : never }

export const isSettingName = (name: string): name is SettingName => Object.hasOwn(keys, name)
