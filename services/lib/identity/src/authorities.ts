import { statement, TwoGenerations, type Database } from '@haven/db'
import { Authority, heldRole, type GrantFacts, type HeldRole, type Inactivity, type RoleFacts } from './authority.ts'
import type { AdminGroup } from './admin-group.ts'
import { roles } from './permissions.ts'
import type { Principal } from './principal.ts'

const maxAgeMs = 5_000
const maxPrincipals = 10_000

type Kept = { readonly authority: Authority; readonly untilMs: number }

/**
 * What principals may do, from the database or from memory not older than 5 s; a change that this process hears of is seen at
 * once (threats.md R10).
 */
export class Authorities implements Disposable {
  readonly #db: Database
  readonly #now: () => number
  readonly #adminGroup: () => Promise<AdminGroup | null>
  readonly #kept = new TwoGenerations<Kept>(maxPrincipals, Infinity, undefined, 'rights')
  readonly #loading = new Map<string, Promise<Authority>>()
  readonly #stop: () => void
  #roles: { readonly byId: ReadonlyMap<number, HeldRole>; readonly untilMs: number } | null = null
  /** What began to load before a change is answered but not kept: it may not have seen the change. */
  #epoch = 0

  constructor(db: Database, options: { now?: () => number; adminGroup?: () => Promise<AdminGroup | null> } = {}) {
    this.#db = db
    this.#now = options.now ?? Date.now
    this.#adminGroup = options.adminGroup ?? (() => Promise.resolve(null))
    this.#stop = db.announcements.on((table) => {
      if (table === 'lost' || table === 'system.settings' || table.startsWith('identity.')) this.forget()
    })
  }

  /** Forgets everything: for a caller that has just written a grant and reads it back before its announcement comes around. */
  forget(): void {
    this.#epoch++
    this.#kept.clear()
    this.#loading.clear()
    this.#roles = null
  }

  /** What is in memory and young enough; null: ask `of`. */
  remembered(principal: Exclude<Principal, { kind: 'service' }>): Authority | null {
    const kept = this.#kept.get(keyOf(principal))
    return kept && this.#now() < kept.untilMs ? kept.authority : null
  }

  async of(principal: Principal): Promise<Authority> {
    if (principal.kind === 'service') return new Authority(principal, { active: true, grants: [] }, new Map())
    const kept = this.remembered(principal)
    if (kept !== null) return kept
    const key = keyOf(principal)
    const running = this.#loading.get(key)
    if (running) return running
    const loading = this.#load(key, principal)
    this.#loading.set(key, loading)
    try {
      return await loading
    } finally {
      if (this.#loading.get(key) === loading) this.#loading.delete(key)
    }
  }

  /** What a group gives its members, by the group's name; null: there is none. Never kept: people ask for it, and seldom. */
  async ofGroup(name: string): Promise<Authority | null> {
    const group = await this.#db.reads.one(groupByName, [name])
    if (!group) return null
    const [grants, rolesById] = await Promise.all([
      this.#db.reads.rows(grantsOf, [null, null, group.id]),
      this.#rolesById(this.#now() + maxAgeMs),
    ])
    return new Authority({ kind: 'group', ...group }, { active: true, grants }, rolesById)
  }

  async #load(key: string, principal: Exclude<Principal, { kind: 'service' }>): Promise<Authority> {
    const epoch = this.#epoch
    const untilMs = this.#now() + maxAgeMs
    const [state, grants, rolesById] = await Promise.all([
      this.#state(principal),
      this.#db.reads.rows(grantsOf, [
        principal.kind === 'user' ? principal.id : null,
        principal.kind === 'robot' ? principal.id : null,
        null,
      ]),
      this.#rolesById(untilMs),
    ])
    const authority = new Authority(state.principal, { ...state, grants: [...grants, ...state.byGroup] }, rolesById)
    if (epoch === this.#epoch) this.#kept.set(key, { authority, untilMs })
    return authority
  }

  /** The name comes from the row and not from the caller: it may have changed since the credential was made. */
  async #state(principal: Exclude<Principal, { kind: 'service' }>) {
    if (principal.kind === 'anonymous') return { principal, active: true, byGroup: [] }
    if (principal.kind === 'user') {
      const group = await this.#adminGroup()
      const row = await this.#db.reads.one(userState, [
        principal.id,
        group?.provider ?? null,
        group?.externalId ?? null,
      ])
      return {
        principal: row ? { ...principal, name: row.name } : principal,
        active: row !== null && row.inactiveBecause === null,
        inactiveBecause: row?.inactiveBecause ?? null,
        passwordId: row?.passwordId ?? null,
        byGroup: row?.adminByGroup ? [adminByGroup] : [],
      }
    }
    const row = await this.#db.reads.one(robotState, [principal.id])
    return {
      principal: row ? { ...principal, projectId: row.projectId } : principal,
      active: row !== null && row.inactiveBecause === null,
      inactiveBecause: row?.inactiveBecause ?? null,
      byGroup: [],
    }
  }

  async #rolesById(untilMs: number): Promise<ReadonlyMap<number, HeldRole>> {
    if (this.#roles && this.#now() < this.#roles.untilMs) return this.#roles.byId
    const epoch = this.#epoch
    const rows = await this.#db.reads.rows(allRoles, [])
    const byId = new Map(rows.map((role) => [role.id, heldRole(role)]))
    if (epoch === this.#epoch) this.#roles = { byId, untilMs }
    return byId
  }

  [Symbol.dispose](): void {
    this.#stop()
  }
}

/** The setting's grant: it has no row, and ends with the setting or the membership. */
const adminByGroup: GrantFacts = {
  id: 0,
  principalKind: 'group',
  roleId: roles.systemAdmin.id,
  resource: null,
  action: null,
  effect: 'allow',
  nodeKind: 'system',
  projectId: null,
  repository: null,
  tagPattern: null,
}

const keyOf = (principal: Exclude<Principal, { kind: 'service' }>) =>
  principal.kind === 'anonymous' ? 'anonymous' : `${principal.kind}:${principal.id}`

type UserState = {
  name: string
  inactiveBecause: Inactivity | null
  passwordId: number | null
  adminByGroup: boolean
}

const userState = statement<UserState>(
  'identity: user state',
  `select u.username as name,
          case when u.deleted_at is not null then 'deleted' when u.disabled_at is not null then 'disabled' end as "inactiveBecause",
          (select max(c.id) from identity.credentials c
            where c.user_id = u.id and c.kind = 'password' and c.revoked_at is null) as "passwordId",
          exists (select from identity.group_members m join identity.groups g on g.id = m.group_id
                   where m.user_id = u.id and g.provider = $2 and g.external_id = $3) as "adminByGroup"
     from identity.users u where u.id = $1::int`,
)

const robotState = statement<{ projectId: number | null; inactiveBecause: Inactivity | null }>(
  'identity: robot state',
  `select project_id as "projectId",
          case when deleted_at is not null then 'deleted' when disabled_at is not null then 'disabled'
               when expires_at <= now() then 'expired' end as "inactiveBecause"
     from identity.robots where id = $1::int`,
)

const grantsOf = statement<GrantFacts>(
  'identity: grants of a principal',
  `select id, principal_kind as "principalKind", role_id as "roleId", resource, action, effect, node_kind as "nodeKind",
          project_id as "projectId", repository, tag_pattern as "tagPattern"
     from identity.grants
    where (principal_kind = 'everyone'
        or (principal_kind = 'user' and principal_id = $1::int)
        or (principal_kind = 'robot' and principal_id = $2::int)
        or (principal_kind = 'group' and (principal_id = $3::int or principal_id in
             (select group_id from identity.group_members where user_id = $1::int))))
      and (expires_at is null or expires_at > now())`,
)

const groupByName = statement<{ id: number; name: string }>(
  'identity: group by name',
  'select id, name from identity.groups where name = $1 order by id limit 1',
)

const allRoles = statement<RoleFacts>(
  'identity: roles',
  `select r.id, r.name, r.weight,
          coalesce(json_agg(json_build_object('resource', p.resource, 'action', p.action))
                     filter (where p.role_id is not null), '[]') as permissions
     from identity.roles r left join identity.role_permissions p on p.role_id = r.id
    group by r.id`,
)
