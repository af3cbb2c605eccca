import { statement, TwoGenerations, type Database } from '@haven/db'
import { Authority, heldRole, type GrantFacts, type HeldRole, type RoleFacts } from './authority.ts'
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
  readonly #kept = new TwoGenerations<Kept>(maxPrincipals)
  readonly #loading = new Map<string, Promise<Authority>>()
  readonly #stop: () => void
  #roles: { readonly byId: ReadonlyMap<number, HeldRole>; readonly untilMs: number } | null = null
  /** What began to load before a change is answered but not kept: it may not have seen the change. */
  #epoch = 0

  constructor(db: Database, now: () => number = Date.now) {
    this.#db = db
    this.#now = now
    this.#stop = db.announcements.on((table) => {
      if (table === 'lost' || table.startsWith('identity.')) this.forget()
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

  async #load(key: string, principal: Exclude<Principal, { kind: 'service' }>): Promise<Authority> {
    const epoch = this.#epoch
    const untilMs = this.#now() + maxAgeMs
    const [state, grants, rolesById] = await Promise.all([
      this.#state(principal),
      this.#db.reads.rows(grantsOf, [
        principal.kind === 'user' ? principal.id : null,
        principal.kind === 'robot' ? principal.id : null,
      ]),
      this.#rolesById(untilMs),
    ])
    const authority = new Authority(state.principal, { ...state, grants }, rolesById)
    if (epoch === this.#epoch) this.#kept.set(key, { authority, untilMs })
    return authority
  }

  /** The name comes from the row and not from the caller: it may have changed since the credential was made. */
  async #state(principal: Exclude<Principal, { kind: 'service' }>) {
    if (principal.kind === 'anonymous') return { principal, active: true }
    if (principal.kind === 'user') {
      const row = await this.#db.reads.one(userState, [principal.id])
      return {
        principal: row ? { ...principal, name: row.name } : principal,
        active: row?.active ?? false,
        passwordId: row?.passwordId ?? null,
      }
    }
    const row = await this.#db.reads.one(robotState, [principal.id])
    return { principal: row ? { ...principal, projectId: row.projectId } : principal, active: row?.active ?? false }
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

const keyOf = (principal: Exclude<Principal, { kind: 'service' }>) =>
  principal.kind === 'anonymous' ? 'anonymous' : `${principal.kind}:${principal.id}`

const userState = statement<{ name: string; active: boolean; passwordId: number | null }>(
  'identity: user state',
  `select u.username as name,
          u.disabled_at is null and u.deleted_at is null as active,
          (select max(c.id) from identity.credentials c
            where c.user_id = u.id and c.kind = 'password' and c.revoked_at is null) as "passwordId"
     from identity.users u where u.id = $1::int`,
)

const robotState = statement<{ projectId: number | null; active: boolean }>(
  'identity: robot state',
  `select project_id as "projectId",
          disabled_at is null and deleted_at is null and (expires_at is null or expires_at > now()) as active
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
        or (principal_kind = 'group' and principal_id in
             (select group_id from identity.group_members where user_id = $1::int)))
      and (expires_at is null or expires_at > now())`,
)

const allRoles = statement<RoleFacts>(
  'identity: roles',
  `select r.id, r.name, r.weight,
          coalesce(json_agg(json_build_object('resource', p.resource, 'action', p.action))
                     filter (where p.role_id is not null), '[]') as permissions
     from identity.roles r left join identity.role_permissions p on p.role_id = r.id
    group by r.id`,
)
