import type { Authority } from './authority.ts'
import { decide, type Question, type Reason, type ReasonCode } from './decide.ts'
import {
  grantedResource,
  isPublic,
  permissionsOf,
  projectKnows,
  projectRoles,
  robotCatalogue,
  roles,
  systemKnows,
  type RoleName,
} from './permissions.ts'
import { nameOf } from './principal.ts'

/** One thing that was looked at, in words. `grants` says whether this alone would allow it. */
export type ExplainedReason = Readonly<{
  code: ReasonCode
  message: string
  grants: boolean
  role?: string
  via?: string
  /** The grant that it is about. */
  grant?: Readonly<{ id: number; node: string }>
}>

/** One thing that would turn a refusal into a permission. */
export type Remedy = Readonly<{
  kind: 'role' | 'permission' | 'public-project' | 'enable'
  message: string
  role?: RoleName
}>

export type ExplainedDecision = Readonly<{
  allowed: boolean
  reasons: readonly ExplainedReason[]
  /** The least that would allow it, first; empty when it is allowed, or when nothing would. */
  wouldAllow: readonly Remedy[]
}>

/** Whether the permission table knows a question at all: what it does not know, nobody but an administrator is ever asked for. */
export function isKnownPermission({ resource, action, on }: Question): boolean {
  return on === 'system' ? systemKnows(resource, action) : projectKnows(resource, action)
}

/** The verdict of `decide` for people: each reason as a sentence, and what would allow what was refused. */
export function explainDecision(authority: Authority, question: Question): ExplainedDecision {
  const { allowed, reasons } = decide(authority, question)
  const said = reasons.map((reason) => explain(authority, question, reason))
  return { allowed, reasons: said, wouldAllow: allowed ? [] : remedies(authority, question, reasons) }
}

const placeOf = ({ on }: Question) => (on === 'system' ? 'the system' : `project ${on.project.name}`)

function explain(authority: Authority, question: Question, { code, facts }: Reason): ExplainedReason {
  const { principal } = authority
  const who = nameOf(principal) || 'a visitor who did not sign in'
  const what = `${question.resource || 'project'}:${question.action}`
  const role = typeof facts.role === 'string' ? facts.role : undefined
  const through = typeof facts.through === 'string' && facts.through !== principal.kind ? facts.through : undefined
  const via = through === undefined ? '' : ` through ${through === 'everyone' ? 'a grant to everyone' : `a ${through}`}`
  const where =
    facts.node === 'repository' || facts.node === 'tag' ? `a part of ${placeOf(question)}` : placeOf(question)
  const messages: Record<ReasonCode, string> = {
    service: `${who} is a service of this installation`,
    'system-admin': `${who} is a system administrator`,
    role: `${who} is ${role} of ${where}${via}, which includes ${what}`,
    permission: `${who} was given ${what} on ${where}${via}`,
    'push-implies-pull': `${who} may push to ${where}, and a robot that may push may pull`,
    'public-project': `${placeOf(question)} is public: everybody has ${what} there`,
    inactive: `${who} is ${authority.inactiveBecause ?? 'gone'}, and may do nothing`,
    denied: `${what} on ${where} was taken from ${who}${via}`,
    'no-grant': `nothing gives ${what} on ${placeOf(question)} to ${who}`,
    'not-for-administrators': `${what} is given by name only: being an administrator does not include it`,
  }
  return {
    code,
    message: messages[code],
    grants: !refusing.has(code),
    ...(role !== undefined && { role }),
    ...(through !== undefined && { via: through }),
    ...(typeof facts.grant === 'number' && { grant: { id: facts.grant, node: String(facts.node) } }),
  }
}

const refusing: ReadonlySet<ReasonCode> = new Set(['inactive', 'denied', 'no-grant', 'not-for-administrators'])

function remedies({ principal, inactiveBecause }: Authority, question: Question, reasons: readonly Reason[]): Remedy[] {
  const { resource, action, on } = question
  const codes = new Set(reasons.map(({ code }) => code))
  const place = placeOf(question)
  if (codes.has('inactive')) {
    const mended = { disabled: 'enabled again', expired: 'given a longer duration', deleted: 'made anew' }
    return [{ kind: 'enable', message: `${nameOf(principal)} ${mended[inactiveBecause ?? 'deleted']}` }]
  }
  if (codes.has('denied')) return [{ kind: 'permission', message: `the denial on ${place} taken back` }]
  const given: Remedy = {
    kind: 'permission',
    message: `${resource || 'project'}:${action} on ${place} given by itself`,
  }
  const opened: Remedy[] =
    on !== 'system' && isPublic(resource, action) ? [{ kind: 'public-project', message: `${place} made public` }] : []
  if (principal.kind === 'robot') return [...(mayBeGiven(principal, question) ? [given] : []), ...opened]
  if (principal.kind === 'anonymous') return opened
  if (codes.has('not-for-administrators')) return [given]
  const weakest = on === 'system' ? undefined : projectRoles.toReversed().find((role) => holds(role, resource, action))
  const named: Remedy[] = weakest
    ? [{ kind: 'role', role: weakest, message: `the role ${roles[weakest].title}, or a stronger one, in ${place}` }]
    : []
  if (principal.kind === 'group') return [...named, ...opened]
  const administrator: Remedy = { kind: 'role', role: 'systemAdmin', message: 'being a system administrator' }
  return [...named, ...opened, administrator]
}

/** A robot of a project is given what is in the catalogue of projects, in its own project; one of the system everything in both. */
function mayBeGiven(robot: Extract<Authority['principal'], { kind: 'robot' }>, { resource, action, on }: Question) {
  if (robot.projectId !== null && (on === 'system' || on.project.id !== robot.projectId)) return false
  const level = on === 'system' ? 'system' : 'project'
  return robotCatalogue(level).some(
    (each) => grantedResource(level, each.resource) === resource && each.action === action,
  )
}

const holds = (role: RoleName, resource: string, action: string) =>
  permissionsOf(role).some((each) => each.resource === resource && each.action === action)
