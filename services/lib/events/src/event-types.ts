/** What Harbor's portal and API offer to switch off and to purge, in its order (harbor-jobs-and-data.md §19). More is recorded. */
export const auditEventTypes = [
  'create_artifact',
  'delete_artifact',
  'pull_artifact',
  'create_project',
  'delete_project',
  'delete_repository',
  'login_user',
  'logout_user',
  'create_user',
  'delete_user',
  'update_user',
  'create_robot',
  'delete_robot',
  'update_configuration',
  'create_member',
  'delete_member',
  'update_member',
  'update_project',
] as const

/** Those that a purge names one by one; all the rest goes by `other`. */
export const artifactEventTypes = ['create_artifact', 'delete_artifact', 'pull_artifact'] as const

/** Names of event types from a comma list. */
export const parseEventTypes = (list: string): string[] =>
  list
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
