import type { Authority, HeldGrant } from './authority.ts'
import { isPublic, scannerPull, type Permission } from './permissions.ts'
import { nameOf, type ProjectNode } from './principal.ts'

export type Question = {
  readonly resource: string
  readonly action: string
  readonly on: 'system' | ProjectTarget
}

/** `repository` is the path below the project. */
export type ProjectTarget = {
  readonly project: ProjectNode
  readonly repository?: string
  readonly tag?: string
}

/**
 * Why a verdict is what it is. `facts` are for people and logs; the codes are stable.
 * Allowing: service · system-admin · role · permission · push-implies-pull · public-project.
 * Refusing: inactive · denied · no-grant · not-for-administrators.
 */
export type Reason = { readonly code: ReasonCode; readonly facts: Readonly<Record<string, unknown>> }

export type ReasonCode =
  | 'service'
  | 'system-admin'
  | 'role'
  | 'permission'
  | 'push-implies-pull'
  | 'public-project'
  | 'inactive'
  | 'denied'
  | 'no-grant'
  | 'not-for-administrators'

export type Verdict = { readonly allowed: boolean; readonly reasons: readonly Reason[] }

/**
 * May this principal do that? The one function that says so, for every door.
 *
 * Some grant must allow and none may deny; a deny also takes away what everybody may do in a public project. A system
 * administrator may do everything but pull as a scanner, and cannot be denied: a wrong deny must not lock out who can mend it.
 * Somebody disabled, deleted or expired may do nothing at all, what is public included: his credential is no longer one.
 */
export function decide(authority: Authority, question: Question): Verdict {
  const { principal } = authority
  if (principal.kind === 'service')
    return { allowed: true, reasons: [{ code: 'service', facts: { name: principal.name } }] }
  if (!authority.active) return { allowed: false, reasons: [inactive(authority)] }
  if (authority.systemAdmin && question.action !== scannerPull) {
    return { allowed: true, reasons: [{ code: 'system-admin', facts: { name: nameOf(principal) } }] }
  }

  const allowing: Reason[] = []
  const denying: Reason[] = []
  for (const grant of authority.grantsOn(question.on === 'system' ? null : question.on.project.id)) {
    if (!covers(grant, question.on)) continue
    const code = permits(authority, grant, question)
    if (code === null) continue
    if (grant.effect === 'deny') denying.push({ code: 'denied', facts: factsOf(grant) })
    else allowing.push({ code, facts: factsOf(grant) })
  }
  if (question.on !== 'system' && question.on.project.public && isPublic(question.resource, question.action)) {
    allowing.push({ code: 'public-project', facts: { project: question.on.project.name } })
  }

  if (denying.length > 0) return { allowed: false, reasons: denying }
  if (allowing.length > 0) return { allowed: true, reasons: allowing }
  const facts = { resource: question.resource, action: question.action }
  return { allowed: false, reasons: [{ code: authority.systemAdmin ? 'not-for-administrators' : 'no-grant', facts }] }
}

const inactive = ({ principal, inactiveBecause: because }: Authority): Reason => ({
  code: 'inactive',
  facts: { kind: principal.kind, name: nameOf(principal), because },
})

/** Where a permission is handed on: the system, one project by its id, or all projects, those to come included. */
export type Scope = 'system' | 'every-project' | number

/**
 * May this principal give others a permission? Only what grants of his own give on all of the scope: what everybody may do while a
 * project is public is not his to give, and what a deny took from a part of the scope he lacks (threats.md A09, A10).
 */
export function mayPassOn(authority: Authority, { resource, action }: Permission, scope: Scope): boolean {
  if (authority.principal.kind === 'service') return true
  if (!authority.active) return false
  if (authority.systemAdmin) return action !== scannerPull
  const permits = (grant: HeldGrant) => grant.permits(resource, action)
  const inScope = [
    ...(scope === 'every-project' ? authority.allGrants() : authority.grantsOn(scope === 'system' ? null : scope)),
  ]
  if (inScope.some((grant) => grant.effect === 'deny' && permits(grant))) return false
  return inScope.some(
    (grant) =>
      grant.effect === 'allow' &&
      (scope === 'system' ? grant.node.kind === 'system' : grant.node.kind === 'project') &&
      (scope !== 'every-project' || grant.node.projectId === null) &&
      permits(grant),
  )
}

function covers({ node }: HeldGrant, on: Question['on']): boolean {
  if (node.kind === 'system' || on === 'system') return node.kind === 'system' && on === 'system'
  if (node.projectId !== null && node.projectId !== on.project.id) return false
  if (node.kind === 'project') return true
  // A grant on a repository or a tag says nothing about a question that names none.
  if (on.repository === undefined || !node.repository(on.repository)) return false
  return node.kind === 'repository' || (on.tag !== undefined && node.tag(on.tag))
}

function permits(authority: Authority, grant: HeldGrant, { resource, action }: Question): ReasonCode | null {
  if (grant.permits(resource, action)) return grant.role === null ? 'permission' : 'role'
  // Harbor: a project's robot that may push may pull; a system robot has exactly what it was given (harbor-rbac.md §8).
  const projectRobot = authority.principal.kind === 'robot' && authority.principal.projectId !== null
  if (projectRobot && grant.effect === 'allow' && resource === 'repository' && action === 'pull') {
    return grant.permits(resource, 'push') ? 'push-implies-pull' : null
  }
  return null
}

const factsOf = (grant: HeldGrant) => ({
  grant: grant.id,
  node: grant.node.kind,
  through: grant.through,
  ...(grant.role && { role: grant.role.name }),
})
