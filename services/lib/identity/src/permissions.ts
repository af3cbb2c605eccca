/**
 * What a caller may do, as tables. `permissions.txt` beside this folder is their printed form: a change here shows there, in
 * the review (`pnpm --filter @haven/identity run gen`).
 */

/** Harbor's ids below 100, our own from 100 on; ids from 1000 on are roles that people make. */
export const roles = {
  projectAdmin: { id: 1, title: 'Project Admin', weight: 50 },
  maintainer: { id: 4, title: 'Maintainer', weight: 40 },
  developer: { id: 2, title: 'Developer', weight: 30 },
  guest: { id: 3, title: 'Guest', weight: 20 },
  limitedGuest: { id: 5, title: 'Limited Guest', weight: 10 },
  systemAdmin: { id: 100, title: 'System Administrator', weight: 100 },
} as const

export type RoleName = keyof typeof roles
export type ProjectRoleName = Exclude<RoleName, 'systemAdmin'>

/** Strongest first: each holds everything that those behind it hold. */
export const projectRoles = ['projectAdmin', 'maintainer', 'developer', 'guest', 'limitedGuest'] as const

/** The resource that is the project itself. */
export const self = ''
export const anyResource = '*'
export const anyAction = '*'

/** Pull for a scanner, which passes the gates on vulnerable content. Nobody has it by role, not even the administrator. */
export const scannerPull = 'scanner-pull'

export type Permission = { readonly resource: string; readonly action: string }

export const permissionKey = (resource: string, action: string): string => `${resource}:${action}`

export type PermissionTest = (resource: string, action: string) => boolean

/** Whether a list of permissions, with its wildcards, holds one. Pulling as a scanner is only ever held by name. */
export function permissionTest(permissions: readonly Permission[]): PermissionTest {
  const keys = new Set(permissions.map((p) => permissionKey(p.resource, p.action)))
  return (resource, action) =>
    keys.has(permissionKey(resource, action)) ||
    (action !== scannerPull &&
      (keys.has(permissionKey(resource, anyAction)) ||
        keys.has(permissionKey(anyResource, action)) ||
        keys.has(permissionKey(anyResource, anyAction))))
}

/** Resource → action → the weakest role that holds it (Harbor's matrix, harbor-rbac.md §4). */
const projectTable: Readonly<Record<string, Readonly<Record<string, ProjectRoleName>>>> = {
  [self]: { read: 'limitedGuest', update: 'projectAdmin', delete: 'projectAdmin' },
  member: {
    read: 'guest',
    list: 'guest',
    create: 'projectAdmin',
    update: 'projectAdmin',
    delete: 'projectAdmin',
  },
  // No role may list: only a single key can be read (Harbor's API asks for metadata:list all the same).
  metadata: { read: 'maintainer', create: 'projectAdmin', update: 'projectAdmin', delete: 'projectAdmin' },
  log: { list: 'projectAdmin' },
  label: { read: 'guest', list: 'guest', create: 'maintainer', update: 'maintainer', delete: 'maintainer' },
  quota: { read: 'limitedGuest' },
  repository: {
    read: 'limitedGuest',
    list: 'limitedGuest',
    create: 'developer',
    update: 'developer',
    delete: 'maintainer',
    pull: 'limitedGuest',
    push: 'developer',
  },
  'tag-retention': {
    read: 'developer',
    list: 'developer',
    create: 'developer',
    update: 'developer',
    delete: 'developer',
    operate: 'developer',
  },
  'immutable-tag': { list: 'maintainer', create: 'maintainer', update: 'maintainer', delete: 'maintainer' },
  configuration: { read: 'limitedGuest', update: 'projectAdmin' },
  robot: {
    read: 'guest',
    list: 'guest',
    create: 'projectAdmin',
    update: 'projectAdmin',
    delete: 'projectAdmin',
  },
  'notification-policy': {
    read: 'maintainer',
    list: 'maintainer',
    create: 'projectAdmin',
    update: 'projectAdmin',
    delete: 'projectAdmin',
  },
  scan: { read: 'limitedGuest', create: 'maintainer', stop: 'maintainer' },
  sbom: { read: 'limitedGuest', create: 'maintainer', stop: 'maintainer' },
  scanner: { read: 'limitedGuest', create: 'projectAdmin' },
  artifact: { read: 'limitedGuest', list: 'limitedGuest', create: 'developer', delete: 'maintainer' },
  'artifact-addition': { read: 'limitedGuest' },
  tag: { list: 'limitedGuest', create: 'developer', delete: 'maintainer' },
  accessory: { list: 'limitedGuest' },
  'artifact-label': { create: 'developer', delete: 'developer' },
  'preheat-policy': {
    read: 'projectAdmin',
    list: 'projectAdmin',
    create: 'projectAdmin',
    update: 'projectAdmin',
    delete: 'projectAdmin',
  },
  'export-cve': { read: 'developer', list: 'developer', create: 'developer' },
}

type Catalogue = Readonly<Record<string, readonly string[]>>

/** What everybody may do in a public project, anonymous callers included (§5). `repository:read` is not among it. */
const publicTable: Catalogue = {
  [self]: ['read'],
  label: ['read', 'list'],
  repository: ['list', 'pull'],
  scan: ['read'],
  scanner: ['read'],
  tag: ['list'],
  artifact: ['read', 'list'],
  'artifact-addition': ['read'],
  accessory: ['list'],
}

const crudl = ['create', 'read', 'update', 'delete', 'list']

/** What `GET /users/current/permissions?scope=/system` enumerates (§6). */
const systemTable: Catalogue = {
  catalog: ['read'],
  'audit-log': ['list'],
  project: crudl,
  user: crudl,
  'user-group': crudl,
  registry: crudl,
  replication: crudl,
  distribution: crudl,
  'garbage-collection': crudl,
  'scan-all': [...crudl, 'stop'],
  'system-volumes': ['read'],
  'ldap-user': ['create', 'list'],
  configuration: ['read', 'update'],
  'jobservice-monitor': ['read', 'list', 'stop'],
  'security-hub': ['read', 'list'],
}

/** Asked by handlers though Harbor's enumeration above leaves them out (§6, last paragraph; §7.1). */
const systemTableUnlisted: Catalogue = {
  'replication-policy': crudl,
  'replication-adapter': ['list'],
  'preheat-instance': crudl,
  'purge-audit': ['read', 'create', 'list', 'update', 'stop'],
  'garbage-collection': ['stop'],
  scanner: crudl,
  label: ['read', 'create', 'delete', 'update'],
  quota: ['read', 'list', 'update'],
  robot: crudl,
}

/** What a robot can be given (§7): `base`, and what Harbor added with 2.13. */
const robotTables: Readonly<Record<'system' | 'project', { readonly base: Catalogue; readonly added: Catalogue }>> = {
  system: {
    base: {
      'audit-log': ['list'],
      'preheat-instance': ['read', 'create', 'delete', 'list', 'update'],
      project: ['list', 'create'],
      'replication-policy': ['read', 'create', 'delete', 'list', 'update'],
      replication: ['read', 'create', 'list'],
      'replication-adapter': ['list'],
      registry: ['read', 'create', 'delete', 'list', 'update'],
      'scan-all': ['read', 'update', 'stop', 'create'],
      'system-volumes': ['read'],
      'garbage-collection': ['read', 'create', 'list', 'update', 'stop'],
      'purge-audit': ['read', 'create', 'list', 'update', 'stop'],
      'jobservice-monitor': ['list', 'stop'],
      scanner: ['read', 'create', 'delete', 'list', 'update'],
      label: ['read', 'create', 'delete', 'update'],
      'security-hub': ['read', 'list'],
      catalog: ['read'],
      quota: ['read', 'list'],
    },
    added: {
      quota: ['update'],
      robot: ['create', 'read', 'list', 'delete'],
      user: ['create', 'read', 'update', 'list', 'delete'],
      'ldap-user': ['create', 'list'],
      'user-group': ['create', 'read', 'update', 'list', 'delete'],
    },
  },
  project: {
    base: {
      log: ['list'],
      project: ['read', 'delete', 'update'],
      metadata: ['read', 'create', 'delete', 'list', 'update'],
      repository: ['read', 'update', 'delete', 'list', 'pull', 'push'],
      artifact: ['read', 'create', 'list', 'delete'],
      scan: ['create', 'read', 'stop'],
      sbom: ['create', 'stop', 'read'],
      tag: ['create', 'list', 'delete'],
      accessory: ['list'],
      'artifact-addition': ['read'],
      'artifact-label': ['create', 'delete'],
      scanner: ['create', 'read'],
      'preheat-policy': ['read', 'create', 'delete', 'list', 'update'],
      'immutable-tag': ['create', 'delete', 'list', 'update'],
      'notification-policy': ['read', 'create', 'delete', 'list', 'update'],
      'tag-retention': ['read', 'create', 'delete', 'list', 'update'],
      label: ['read', 'create', 'delete', 'list', 'update'],
      quota: ['read'],
    },
    added: {
      robot: ['create', 'read', 'list', 'delete'],
      'export-cve': ['create', 'read'],
      member: ['create', 'read', 'update', 'list', 'delete'],
    },
  },
}

const pairs = (table: Catalogue): Permission[] =>
  Object.entries(table).flatMap(([resource, actions]) => actions.map((action) => ({ resource, action })))

/** Every (resource, action) that some project role holds. */
export const projectPermissions: readonly Permission[] = Object.entries(projectTable).flatMap(([resource, actions]) =>
  Object.keys(actions).map((action) => ({ resource, action })),
)

/** Everything that can be asked about the system, as Harbor enumerates it. */
export const systemPermissions: readonly Permission[] = pairs(systemTable)

export const unlistedSystemPermissions: readonly Permission[] = pairs(systemTableUnlisted)

export const publicPermissions: readonly Permission[] = pairs(publicTable)

const publicKeys = new Set(publicPermissions.map((p) => permissionKey(p.resource, p.action)))

/** May anybody do this in a public project? */
export const isPublic = (resource: string, action: string): boolean => publicKeys.has(permissionKey(resource, action))

/** Whether a permission on the system is one that is ever asked for. */
export const systemKnows = (resource: string, action: string): boolean =>
  systemKeys.has(permissionKey(resource, action))

/** Whether a permission in a project is one that is ever asked for. */
export const projectKnows = (resource: string, action: string): boolean =>
  projectKeys.has(permissionKey(resource, action))

/** The permissions of a preset role. */
export function permissionsOf(role: RoleName): readonly Permission[] {
  if (role === 'systemAdmin') return [{ resource: anyResource, action: anyAction }]
  return projectPermissions.filter(
    ({ resource, action }) => roles[projectTable[resource]![action]!].weight <= roles[role].weight,
  )
}

/** What a robot can be given on the system or in a project, in the catalogue's spelling (`project` for the project itself). */
export function robotCatalogue(level: 'system' | 'project'): readonly Permission[] {
  const { base, added } = robotTables[level]
  return [...pairs(base), ...pairs(added)]
}

/**
 * How a permission of a robot is kept in a grant: in a project, Harbor's robots say `project` for the project itself (§8,
 * "resource mapping"). `catalogueResource` is the way back.
 */
export const grantedResource = (level: 'system' | 'project', resource: string): string =>
  level === 'project' && resource === 'project' ? self : resource

export const catalogueResource = (level: 'system' | 'project', resource: string): string =>
  level === 'project' && resource === self ? 'project' : resource

const keysOf = (...lists: (readonly Permission[])[]) =>
  new Set(lists.flat().map(({ resource, action }) => permissionKey(resource, action)))
const systemKeys = keysOf(systemPermissions, unlistedSystemPermissions, robotCatalogue('system'))
const projectKeys = keysOf(
  projectPermissions,
  robotCatalogue('project').map((given) => ({ ...given, resource: grantedResource('project', given.resource) })),
  [{ resource: 'repository', action: scannerPull }],
)

/** The tables as text: one line a resource and action, a column a role. */
export function printPermissions(): string {
  const columns = [...projectRoles, 'public'] as const
  const held = new Map<string, Set<string>>(
    columns.map((column) => [
      column,
      new Set((column === 'public' ? publicPermissions : permissionsOf(column)).map(keyOf)),
    ]),
  )
  const matrix = projectPermissions.map((permission) =>
    [shown(permission).padEnd(30), ...columns.map((c) => mark(held.get(c)!.has(keyOf(permission)), c))]
      .join(' ')
      .trimEnd(),
  )
  const lines = (permissions: readonly Permission[]) => permissions.map(shown)
  return [
    '# Roles',
    ...Object.entries(roles).map(
      ([name, r]) => `${String(r.id).padEnd(4)} ${name.padEnd(13)} ${permissionsOf(name as RoleName).length}`,
    ),
    '',
    '# In a project',
    ['resource:action'.padEnd(30), ...columns].join(' '),
    ...matrix,
    '',
    '# On the system (the system administrator, and robots that were given it)',
    ...lines(systemPermissions),
    '',
    '# On the system, not enumerated by /users/current/permissions',
    ...lines(unlistedSystemPermissions),
    ...(['system', 'project'] as const).flatMap((level) => [
      '',
      `# Catalogue of robots: ${level}`,
      ...lines(pairs(robotTables[level].base)),
      ...pairs(robotTables[level].added).map((p) => `${shown(p)} (2.13)`),
    ]),
    '',
  ].join('\n')
}

const keyOf = (p: Permission) => permissionKey(p.resource, p.action)
const shown = (p: Permission) => `${p.resource === self ? '(self)' : p.resource}:${p.action}`
const mark = (has: boolean, column: string) => (has ? 'x' : '-').padEnd(column.length)
