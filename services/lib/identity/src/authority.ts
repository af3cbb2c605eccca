import { problems } from '@haven/errors'
import { compileDoublestar, type Matcher } from '@haven/oci'
import { permissionTest, roles, type Permission, type PermissionTest } from './permissions.ts'
import type { Subject } from './principal.ts'

/** A role as rows say it: presets and those that people made. */
export type RoleFacts = {
  readonly id: number
  readonly name: string
  readonly weight: number
  readonly permissions: readonly Permission[]
}

/** A role ready to be asked: made once for all who hold it. */
export type HeldRole = {
  readonly id: number
  readonly name: string
  readonly weight: number
  readonly permits: PermissionTest
}

export const heldRole = ({ id, name, weight, permissions }: RoleFacts): HeldRole => ({
  id,
  name,
  weight,
  permits: permissionTest(permissions),
})

/** A grant as a row says it. */
export type GrantFacts = {
  readonly id: number
  readonly principalKind: 'user' | 'group' | 'robot' | 'everyone'
  readonly roleId: number | null
  readonly resource: string | null
  readonly action: string | null
  readonly effect: 'allow' | 'deny'
  readonly nodeKind: 'system' | 'project' | 'repository' | 'tag'
  readonly projectId: number | null
  readonly repository: string | null
  readonly tagPattern: string | null
}

/** Why a credential proves nobody any more. */
export type Inactivity = 'disabled' | 'expired' | 'deleted'

/** A grant ready to be asked. */
export type HeldGrant = {
  readonly id: number
  readonly effect: 'allow' | 'deny'
  readonly through: GrantFacts['principalKind']
  readonly role: HeldRole | null
  readonly permits: PermissionTest
  readonly node: {
    readonly kind: GrantFacts['nodeKind']
    readonly projectId: number | null
    readonly repository: Matcher
    readonly tag: Matcher
  }
}

const everything: Matcher = () => true
const nothing: Matcher = () => false

/** What one principal may do, at one moment. Made by `Authorities`; `decide` reads it. */
export class Authority {
  readonly principal: Subject
  /** False once the user or robot is disabled, deleted or expired: the credential proves nobody any more. */
  readonly active: boolean
  readonly inactiveBecause: Inactivity | null
  readonly systemAdmin: boolean
  /** An administrator by a group, whatever the account itself is. */
  readonly systemAdminByGroup: boolean
  /** The password that is valid now, for sessions that began with another; null where there is none. */
  readonly passwordId: number | null
  readonly #byProject = new Map<number | null, HeldGrant[]>()
  readonly #everyProject: HeldGrant[] = []

  constructor(
    principal: Subject,
    facts: {
      active: boolean
      inactiveBecause?: Inactivity | null
      passwordId?: number | null
      grants: readonly GrantFacts[]
    },
    rolesById: ReadonlyMap<number, HeldRole>,
  ) {
    this.principal = principal
    this.active = facts.active
    this.inactiveBecause = facts.active ? null : (facts.inactiveBecause ?? 'deleted')
    this.passwordId = facts.passwordId ?? null
    let systemAdmin = false
    let byGroup = false
    for (const grant of facts.grants) {
      const held = hold(grant, rolesById)
      if (held === null) continue
      if (grant.nodeKind === 'system' && grant.roleId === roles.systemAdmin.id && grant.effect === 'allow') {
        systemAdmin = true
        byGroup ||= grant.principalKind === 'group'
      }
      if (grant.nodeKind !== 'system' && grant.projectId === null) this.#everyProject.push(held)
      else {
        const node = grant.nodeKind === 'system' ? null : grant.projectId
        const grants = this.#byProject.get(node)
        if (grants) grants.push(held)
        else this.#byProject.set(node, [held])
      }
    }
    this.systemAdmin = systemAdmin
    this.systemAdminByGroup = byGroup
  }

  /** Grants that may matter in a project, or (null) on the system. */
  *grantsOn(projectId: number | null): Iterable<HeldGrant> {
    yield* this.#byProject.get(projectId) ?? []
    if (projectId !== null) yield* this.#everyProject
  }

  /** Every grant, wherever it is. */
  *allGrants(): Iterable<HeldGrant> {
    for (const grants of this.#byProject.values()) yield* grants
    yield* this.#everyProject
  }

  /** Roles held on the project itself, strongest first. Harbor shows the first as `current_user_role_id`. */
  rolesOn(projectId: number): HeldRole[] {
    const held = new Map<number, HeldRole>()
    for (const { role, node, effect } of this.grantsOn(projectId)) {
      if (role && node.kind === 'project' && effect === 'allow') held.set(role.id, role)
    }
    return [...held.values()].sort((a, b) => b.weight - a.weight)
  }

  /** The projects that some grant names, for lists of "my projects". Not those that are public or held through all projects. */
  projectIds(): number[] {
    return [...this.#byProject.keys()].filter((id): id is number => id !== null)
  }
}

function hold(grant: GrantFacts, rolesById: ReadonlyMap<number, HeldRole>): HeldGrant | null {
  const role = grant.roleId === null ? null : rolesById.get(grant.roleId)
  if (role === undefined) return null // the role went between two reads; the change drops this answer again
  const pattern = (text: string | null) => {
    if (text === null) return everything
    try {
      return compileDoublestar(text)
    } catch (error) {
      if (!problems.badRequest.is(error)) throw error
      // A pattern that cannot be read must not open anything, nor let a deny slip.
      return grant.effect === 'deny' ? everything : nothing
    }
  }
  return {
    id: grant.id,
    effect: grant.effect,
    through: grant.principalKind,
    role,
    permits: role?.permits ?? permissionTest([{ resource: grant.resource ?? '', action: grant.action ?? '' }]),
    node: {
      kind: grant.nodeKind,
      projectId: grant.projectId,
      repository: pattern(grant.repository),
      tag: pattern(grant.tagPattern),
    },
  }
}
