import type { Condition } from '@haven/db'
import { problems } from '@haven/errors'
import {
  adminId,
  changePassword,
  createUser,
  decide,
  deleteUser,
  findOidcMeta,
  findUser,
  listUsers,
  projectPermissions,
  robotCatalogue,
  roles,
  self,
  setCliSecret,
  setSysadmin,
  systemPermissions,
  updateUser,
  type Permission,
} from '@haven/identity'
import { MaskAuditLogSchema } from '@haven/proto/jobs'
import { startExecution, taskOf } from '@haven/queue'
import { may, requireSystem } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { presentOidcMeta, presentUser, presentUserBriefly } from '../present/user.ts'

const MASK_AUDIT_LOG = { type: 'AUDIT_LOGS_GDPR_COMPLIANT', attempts: 3 }

export const userHandlers: Handlers = {
  async listUsers({ query, at }, context) {
    // Two fields may also be asked for by parameters of their own, and then match a part (harbor-api.md, tag user).
    const parts = ['username', 'email'].flatMap((field): Condition[] => {
      const value = [at.query[field] ?? []].flat()[0]
      return value ? [{ field, match: 'contains', value }] : []
    })
    const { total, users } = await listUsers(context, {
      conditions: [...parseQ(query.q), ...parts],
      sort: parseSort(query.sort),
      page: pageOf(query),
    })
    return listAnswer(at, query, total, users.map(presentUser))
  },

  async createUser({ body, caller }, context) {
    await requireLocalAccounts(context)
    await requireMayRegister(caller, context)
    const { username = '', email = '', realname = '', comment = '', password = '' } = body
    const user = await createUser(context, caller.source, { username, email, realname, comment, password })
    return created(`/api/v2.0/users/${user.id}`)
  },

  async getCurrentUserInfo({ caller }, context) {
    if (caller.principal.kind !== 'user') {
      throw problems.preconditionFailed({
        message: `get current user not available for security context: ${caller.principal.kind}`,
      })
    }
    const user = presentUser(await requireUser(context, caller.principal.id))
    const meta = await oidcMetaOf(context, caller, caller.principal.id)
    return ok({ ...user, ...meta, admin_role_in_auth: (await caller.authority()).systemAdminByGroup })
  },

  async searchUsers({ query, at }, context) {
    const { total, users } = await listUsers(context, {
      conditions: [{ field: 'username', match: 'contains', value: query.username }],
      page: pageOf(query),
    })
    return listAnswer(at, query, total, users.map(presentUserBriefly))
  },

  async getUser({ path, caller }, context) {
    const user = presentUser(await requireUser(context, path.user_id))
    return ok({ ...user, ...(await oidcMetaOf(context, caller, path.user_id)) })
  },

  async updateUserProfile({ path, body, caller }, context) {
    const user = await requireUser(context, path.user_id, `user with id ${path.user_id} not found`)
    await requireOurs(context, caller, user.id)
    const { email = '', realname = '', comment = '' } = body
    await updateUser(context, caller.source, user.id, { email, realname, comment })
    return ok()
  },

  async deleteUser({ path, caller }, context) {
    const user = await requireUser(context, path.user_id)
    const { deleteUser: pseudonymous, auditLogs } = context.facts.gdpr
    const masked = await deleteUser(context, caller.source, user.id, { pseudonymous })
    if (auditLogs) await maskInAuditLog(context, caller, user.username, masked)
    return ok()
  },

  async setUserSysAdmin({ path, body, caller }, context) {
    await requireUser(context, path.user_id, `user with id ${path.user_id} not found`)
    await setSysadmin(context, caller.source, path.user_id, body.sysadmin_flag ?? false)
    return ok()
  },

  /** One's own password changes with the old one only; an administrator needs none for another's. */
  async updateUserPassword({ path, body, caller }, context) {
    const own = caller.principal.kind === 'user' && caller.principal.id === path.user_id
    await requireUser(context, path.user_id)
    await requireOurs(context, caller, path.user_id)
    await changePassword(context, caller.source, path.user_id, {
      ...(own && { old: body.old_password ?? '' }),
      password: body.new_password ?? '',
    })
    return ok()
  },

  async getCurrentUserPermissions({ query, caller }, context) {
    return ok(await permissionsIn(context, caller, query.scope ?? '', query.relative ?? false))
  },

  async setCliSecret({ path, body, caller }, context) {
    const { auth_mode: mode } = await context.settings.read()
    if (mode !== 'oidc_auth') {
      throw problems.preconditionFailed({ message: `unable to update CLI secret under authmode: ${mode}` })
    }
    await requireUser(context, path.user_id)
    await setCliSecret(context, caller.source, path.user_id, body.secret ?? '')
    return ok()
  },
}

export const permissionsHandlers: Handlers = {
  /** What a robot may be given: administrators choose from all of it, administrators of a project from what is in projects. */
  async getPermissions({ caller }) {
    const authority = await caller.authority()
    const { kind } = caller.principal
    if (kind === 'anonymous') throw problems.unauthorized({ message: '' })
    const systemAdmin = authority.systemAdmin || kind === 'service'
    const projectAdmin = authority
      .projectIds()
      .some((id) => authority.rolesOn(id).some((role) => role.id === roles.projectAdmin.id))
    if (!systemAdmin && !projectAdmin) throw problems.forbidden({ message: '' })
    const shown = (level: 'system' | 'project') =>
      robotCatalogue(level).map(({ resource, action }) => ({ resource, action }))
    return ok({ system: systemAdmin ? shown('system') : null, project: shown('project') })
  },
}

/** The secret for command line clients is its owner's alone: Harbor shows it to administrators, too. */
async function oidcMetaOf(context: CoreContext, caller: Caller, userId: number) {
  if ((await context.settings.read()).auth_mode !== 'oidc_auth' || userId === adminId) return {}
  const meta = await findOidcMeta(context, userId)
  const own = caller.principal.kind === 'user' && caller.principal.id === userId
  return meta ? { oidc_user_meta: presentOidcMeta(meta, userId, { withSecret: own }) } : {}
}

async function maskInAuditLog(
  { db, queue }: CoreContext,
  caller: Caller,
  username: string,
  masked: string,
): Promise<void> {
  const started = await db.transaction((tx) =>
    startExecution(tx, {
      vendorType: MASK_AUDIT_LOG.type,
      trigger: 'MANUAL',
      parameters: {},
      actor: caller.name,
      tasks: [taskOf(MaskAuditLogSchema, MASK_AUDIT_LOG, { username, masked })],
    }),
  )
  await queue.kick(started.tasks)
}

async function requireUser(context: CoreContext, id: number, message = `user ${id} not found`) {
  const user = Number.isSafeInteger(id) && id > 0 && id < 2 ** 31 ? await findUser(context, id) : null
  if (!user) throw problems.notFound({ message })
  return user
}

/** Where a provider says who there is, nobody is made here. @throws forbidden */
async function requireLocalAccounts({ settings }: CoreContext): Promise<void> {
  const { auth_mode: mode } = await settings.read()
  if (mode === 'db_auth') return
  throw problems.forbidden({ message: `creating local user is not allowed under auth mode: ${mode}` })
}

/** A profile and password that a provider keeps are changed there; the first administrator's are ours in every mode (harbor-rbac.md §12). */
async function requireOurs({ settings }: CoreContext, caller: Caller, userId: number): Promise<void> {
  if ((await settings.read()).auth_mode === 'db_auth') return
  if (userId === adminId && (await may(caller, { resource: 'user', action: 'update', on: 'system' }))) return
  throw problems.forbidden({ message: `User with ID ${userId} can not be updated` })
}

/** With self-registration on, a page may make an account for its visitor; a program may not (harbor-rbac.md §12). */
async function requireMayRegister(caller: Caller, { settings }: CoreContext): Promise<void> {
  const allowed = decide(await caller.authority(), { resource: 'user', action: 'create', on: 'system' }).allowed
  if (allowed) return
  if (!(await settings.read()).self_registration) await requireSystem(caller, { resource: 'user', action: 'create' })
  if (!caller.fromBrowser) throw problems.forbidden({ message: 'self-registration cannot be triggered via API' })
}

/** Harbor answers an empty list for a scope that it does not know. */
async function permissionsIn(
  context: CoreContext,
  caller: Caller,
  scope: string,
  relative: boolean,
): Promise<Permission[]> {
  const authority = await caller.authority()
  if (scope === '/system') {
    return systemPermissions.filter((permission) => decide(authority, { ...permission, on: 'system' }).allowed)
  }
  const id = /^\/project\/(\d{1,9})$/.exec(scope)?.[1]
  const project = id === undefined ? null : await context.directory.byId(Number(id))
  if (!project) return []
  const name = (resource: string) => {
    if (relative) return resource === self ? '.' : resource
    return resource === self ? scope : `${scope}/${resource}`
  }
  return projectPermissions
    .filter((permission) => decide(authority, { ...permission, on: { project } }).allowed)
    .map(({ resource, action }) => ({ resource: name(resource), action }))
}
