import { operations, type Operation } from '@haven/proto'
import { Authority, heldRole, type GrantFacts } from './authority.ts'
import { decide, type Question } from './decide.ts'
import { grantedResource, permissionsOf, robotCatalogue, roles, type RoleName } from './permissions.ts'
import { anonymous, type ProjectNode, type Subject } from './principal.ts'

const held = new Map(
  (Object.keys(roles) as RoleName[]).map((name) => [
    roles[name].id,
    heldRole({ id: roles[name].id, name, weight: roles[name].weight, permissions: permissionsOf(name) }),
  ]),
)
const project = (visibility: 'private' | 'public'): ProjectNode => ({
  id: 1,
  name: visibility,
  public: visibility === 'public',
  createdAt: new Date(0),
})
const person: Subject = { kind: 'user', id: 1, name: 'somebody' }

const grant = (facts: Partial<GrantFacts>): GrantFacts => ({
  id: 1,
  principalKind: 'user',
  roleId: null,
  resource: null,
  action: null,
  effect: 'allow',
  nodeKind: 'project',
  projectId: 1,
  repository: null,
  tagPattern: null,
  ...facts,
})

const holding = (subject: Subject, ...grants: Partial<GrantFacts>[]) =>
  new Authority(subject, { active: true, grants: grants.map(grant) }, held)
const inRole = (role: RoleName) => holding(person, { roleId: roles[role].id })

/** A robot that was given everything that robots can be given: in its project, or on the system and in all projects. */
function robotWithAll(level: 'system' | 'project'): Authority {
  const given = (kind: 'system' | 'project', projectId: number | null) =>
    robotCatalogue(kind).map(({ resource, action }) => ({
      principalKind: 'robot' as const,
      resource: grantedResource(kind, resource),
      action,
      nodeKind: kind,
      projectId,
    }))
  const robot: Subject = { kind: 'robot', id: 1, name: 'robot', projectId: level === 'project' ? 1 : null }
  return level === 'project'
    ? holding(robot, ...given('project', 1))
    : holding(robot, ...given('system', null), ...given('project', null))
}

type Column = { readonly title: string; readonly authority: Authority; readonly in: ProjectNode }

const columns: readonly Column[] = [
  { title: 'anonymous', authority: holding(anonymous), in: project('private') },
  { title: 'signedIn', authority: holding(person), in: project('private') },
  { title: 'anonymousInPublic', authority: holding(anonymous), in: project('public') },
  { title: 'signedInInPublic', authority: holding(person), in: project('public') },
  ...(['limitedGuest', 'guest', 'developer', 'maintainer', 'projectAdmin'] as const).map((title) => ({
    title,
    authority: inRole(title),
    in: project('private'),
  })),
  { title: 'projectRobot', authority: robotWithAll('project'), in: project('private') },
  { title: 'systemRobot', authority: robotWithAll('system'), in: project('private') },
  {
    title: 'systemAdmin',
    authority: holding(person, { roleId: roles.systemAdmin.id, nodeKind: 'system', projectId: null }),
    in: project('private'),
  },
]

/**
 * Who may call each operation of the contract, as `decide` says it: one line an operation, a column a caller. A robot has everything
 * that robots can be given. x may, - may not, s himself only, ~ what he may see of it; ? is decided by the rule at the end of the line.
 */
export function printOperations(): string {
  const shown = Object.values(operations).filter(({ api }) => api !== 'oci')
  const name = ({ method, path }: Operation) => `${method.padEnd(6)} ${path.replace(/^\/api\//, '')}`
  const width = Math.max(...shown.map((operation) => name(operation).length))
  return [
    `${'# who may call'.padEnd(width)} ${columns.map(({ title }) => title).join(' ')}`,
    ...shown.map((operation) => {
      const marks = columns.map((column) => mark(operation, column).padEnd(column.title.length))
      const rule = operation.permission.scope === 'special' ? operation.permission.rule : ''
      return `${name(operation).padEnd(width)} ${marks.join(' ')} ${rule}`.trimEnd()
    }),
    '',
  ].join('\n')
}

function mark({ permission }: Operation, { authority, in: on }: Column): string {
  const signedIn = authority.principal.kind !== 'anonymous'
  const says = (question: Question) => (decide(authority, question).allowed ? 'x' : '-')
  switch (permission.scope) {
    case 'public':
      return 'x'
    case 'filtered':
      return '~'
    case 'authenticated':
      return signedIn ? 'x' : '-'
    case 'solution':
      return '-'
    case 'special':
      return '?'
    case 'system':
      return says({ ...permission, on: 'system' })
    case 'self-or-system': {
      const said = says({ ...permission, on: 'system' })
      return said === '-' && authority.principal.kind === 'user' ? 's' : said
    }
    case 'project':
      if (permission.signedIn && !signedIn) return '-'
      return says({ ...permission, resource: grantedResource('project', permission.resource), on: { project: on } })
  }
}
