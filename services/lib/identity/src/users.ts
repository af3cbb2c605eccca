import { crc32 } from 'node:zlib'
import {
  conditionsToSql,
  isUniqueViolation,
  listKept,
  orderOf,
  Prisma,
  statement,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import {
  UserCreatedSchema,
  UserDeletedSchema,
  UserPasswordChangedSchema,
  UserSysadminChangedSchema,
  UserUpdatedSchema,
} from '@haven/proto/events'
import type { Authorities } from './authorities.ts'
import { nameKey, requireComment, requireEmail, requireRealname, requireUsername } from './names.ts'
import { hashPassword, requirePasswordRule, verifySecret, type StoredSecret } from './passwords.ts'
import { roles } from './permissions.ts'
import type { Principal } from './principal.ts'
import type { SignInDeps } from './sign-in.ts'

export type UserDeps = {
  readonly db: Database
  /** Told at once of changes that this process makes, so that its next request sees them. */
  readonly authorities: Pick<Authorities, 'forget'>
  readonly signIn: Pick<SignInDeps, 'remembered'>
}

/** What may be told about a user: never a hash. */
export type UserFacts = {
  readonly id: number
  readonly username: string
  readonly email: string | null
  readonly realname: string
  readonly comment: string
  readonly systemAdmin: boolean
  readonly disabled: boolean
  readonly createdAt: Date
  readonly updatedAt: Date
}

export type NewUser = {
  readonly username: string
  readonly email: string
  readonly realname: string
  readonly comment?: string
  readonly password: string
}

export const adminId = 1
const localProvider = 'local'
/** Changes to who is a system administrator, and the first user, come one after the other. */
const administratorsLock = 0x68_69_64_61

type Transaction = Prisma.TransactionClient

/**
 * Makes a person's account with a password. Nobody becomes an administrator this way.
 * @throws badRequest naming the field; conflict when the name or the e-mail is taken.
 */
export async function createUser(deps: UserDeps, source: EventSource, input: NewUser): Promise<UserFacts> {
  const username = requireUsername(input.username)
  const email = requireEmail(input.email)
  const realname = requireRealname(input.realname)
  const comment = requireComment(input.comment ?? '')
  requirePasswordRule(input.password)
  const stored = await hashPassword(input.password)
  const user = await orConflict(
    deps.db.prisma.$transaction(async (tx) => {
      const data = { username, usernameKey: nameKey(username), email, emailKey: nameKey(email), realname, comment }
      const row = await insertUser(tx, data, stored)
      await emit(tx, UserCreatedSchema, source, { user: ref(row) })
      return row
    }),
    `user ${username} or email ${email} already exists`,
  )
  return facts(user, new Set())
}

/**
 * Changes e-mail, real name and comment; what is not given stays.
 * @throws badRequest, conflict, notFound
 */
export async function updateUser(
  deps: UserDeps,
  source: EventSource,
  id: number,
  input: { readonly email?: string; readonly realname?: string; readonly comment?: string },
): Promise<void> {
  const data = {
    ...(input.email !== undefined && { email: requireEmail(input.email), emailKey: nameKey(input.email) }),
    ...(input.realname !== undefined && { realname: requireRealname(input.realname) }),
    ...(input.comment !== undefined && { comment: requireComment(input.comment) }),
  }
  await orConflict(
    deps.db.prisma.$transaction(async (tx) => {
      const before = await requireUser(tx, id)
      const fields = (['email', 'realname', 'comment'] as const).filter((f) => f in data && data[f] !== before[f])
      if (fields.length === 0) return
      await tx.user.update({ where: { id }, data })
      await emit(tx, UserUpdatedSchema, source, { user: ref(before), fields })
    }),
    `email ${input.email} already exists`,
  )
}

/**
 * Gives a user another password. Every session and remembered sign-in of his ends with the old one.
 * @param old what the user says his password is, where he changes his own; absent where an administrator does it.
 * @throws forbidden for a wrong old password; badRequest for the present password again or one against the rule; notFound
 */
export async function changePassword(
  deps: UserDeps,
  source: EventSource,
  id: number,
  input: { readonly old?: string; readonly password: string },
): Promise<void> {
  const current = await deps.db.prisma.credential.findFirst({
    where: { userId: id, kind: 'password', revokedAt: null, user: { deletedAt: null } },
    orderBy: { id: 'desc' },
  })
  if (input.old !== undefined && !(current && (await verifySecret(current, input.old)))) {
    throw problems.forbidden({ message: 'Current password is incorrect' })
  }
  requirePasswordRule(input.password)
  if (current && (await verifySecret(current, input.password))) {
    throw problems.badRequest({ message: 'New password is identical to old password' })
  }
  const stored = await hashPassword(input.password)
  await deps.db.prisma.$transaction(async (tx) => {
    const user = await requireUser(tx, id)
    await replacePassword(tx, id, stored)
    await emit(tx, UserPasswordChangedSchema, source, { user: ref(user) })
  })
  forget(deps)
}

/**
 * Makes somebody a system administrator, or no longer.
 * @throws preconditionFailed when nobody would be left; notFound
 */
export async function setSysadmin(deps: UserDeps, source: EventSource, id: number, sysadmin: boolean): Promise<void> {
  await deps.db.prisma.$transaction(async (tx) => {
    await lockAdministrators(tx)
    const user = await requireUser(tx, id)
    const is = (await systemAdminsAmong(tx, [id])).has(id)
    if (is === sysadmin) return
    if (sysadmin) await grantSystemAdmin(tx, id)
    else {
      await requireAnotherAdministrator(tx, id)
      await tx.grant.deleteMany({ where: systemAdminGrant(id) })
    }
    await emit(tx, UserSysadminChangedSchema, source, { user: ref(user), sysadmin })
  })
  forget(deps)
}

/**
 * Deletes an account: its name and e-mail are free again, its grants, memberships and secrets are gone; a row without secrets
 * stays, since projects and logs name it.
 * @param pseudonymous that row does not tell either who it was (harbor-features.md D, GDPR delete).
 * @returns what the row calls the user from now on.
 * @throws forbidden for the first administrator and for oneself; preconditionFailed for the last administrator; notFound
 */
export async function deleteUser(
  deps: UserDeps,
  source: EventSource,
  id: number,
  { pseudonymous = false }: { readonly pseudonymous?: boolean } = {},
): Promise<string> {
  const self = source.principal.kind === 'user' && source.principal.id === id
  if (id === adminId || self) throw problems.forbidden({ message: `User with ID ${id} cannot be deleted` })
  const name = await deps.db.prisma.$transaction(async (tx) => {
    await lockAdministrators(tx)
    const user = await requireUser(tx, id)
    if ((await systemAdminsAmong(tx, [id])).has(id)) await requireAnotherAdministrator(tx, id)
    const kept = pseudonymous ? pseudonymsOf(user) : { username: user.username }
    // The row first: whoever makes him a member meanwhile holds it, so that the grant is there to be taken afterwards (R8).
    await tx.user.update({ where: { id }, data: { ...kept, usernameKey: null, emailKey: null, deletedAt: new Date() } })
    await tx.grant.deleteMany({ where: { principalKind: 'user', principalId: id } })
    await tx.groupMember.deleteMany({ where: { userId: id } })
    await tx.identity.deleteMany({ where: { userId: id } })
    await tx.credential.deleteMany({ where: { userId: id } })
    await emit(tx, UserDeletedSchema, source, { user: ref({ ...user, ...kept }) })
    return kept.username
  })
  forget(deps)
  return name
}

/** In Harbor's form: who knows a name can tell that it was this one, nobody can read it back. The id keeps two of them apart. */
function pseudonymsOf({ id, username, email, realname }: UserRow) {
  const pseudonym = (text: string) => `${crc32(text).toString(16).padStart(8, '0')}#${id}`
  return {
    username: pseudonym(username),
    email: email && pseudonym(email),
    realname: pseudonym(realname),
    comment: '',
  }
}

/** The user of this id; null when there is none or it was deleted. */
export async function findUser({ db }: Pick<UserDeps, 'db'>, id: number): Promise<UserFacts | null> {
  const row = await db.prisma.user.findFirst({ where: { id, deletedAt: null } })
  return row && facts(row, await systemAdminsAmong(db.prisma, [id]))
}

/** The user of this name, whatever its case. */
export async function findUserByName({ db }: Pick<UserDeps, 'db'>, name: string): Promise<UserFacts | null> {
  const row = await db.prisma.user.findUnique({ where: { usernameKey: nameKey(name) } })
  return row && facts(row, await systemAdminsAmong(db.prisma, [row.id]))
}

export type UserQuery = {
  readonly conditions?: readonly Condition[]
  readonly sort?: readonly Sort[]
  readonly page: Page
}

const fields: Fields = {
  user_id: { column: Prisma.sql`id`, type: 'number' },
  username: { column: Prisma.sql`username`, type: 'text' },
  email: { column: Prisma.sql`email`, type: 'text' },
  realname: { column: Prisma.sql`realname`, type: 'text' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
  update_time: { column: Prisma.sql`updated_at`, type: 'time' },
}

/**
 * A page of users, the first administrator left out as Harbor does, and how many there are.
 * @throws badRequest for a value that its field cannot have.
 */
export async function listUsers(
  { db }: Pick<UserDeps, 'db'>,
  query: UserQuery,
): Promise<{ total: number; users: UserFacts[] }> {
  const filters = conditionsToSql(query.conditions ?? [], fields)
  const counts = filters.length === 0 ? await keptCounts(db) : null
  const { total, rows } = await listKept<UserRow>(db, {
    columns: Prisma.sql`id, username, email, realname, comment, disabled_at as "disabledAt", created_at as "createdAt", updated_at as "updatedAt"`,
    from: Prisma.sql`identity.users`,
    where: [Prisma.sql`deleted_at is null and id <> ${adminId}`, ...filters],
    order: orderOf(query.sort ?? [], fields, [], Prisma.sql`id`),
    page: query.page,
    tables: ['identity.users'],
    ...(counts && { counts }),
  })
  const admins = await systemAdminsAmong(
    db.prisma,
    rows.map((row) => row.id),
  )
  return { total, users: rows.map((row) => facts(row, admins)) }
}

/** How many users there are but the administrator of the installation, by thousands of ids. */
const keptCounts = ({ prisma }: Pick<Database, 'prisma'>) => prisma.$queryRaw<{ from: number; rows: number }[]>`
  select thousand * 1000 as from,
         users - (select count(*) from identity.users where id = ${adminId} and thousand = 0 and deleted_at is null)::int as rows
    from identity.user_counts order by thousand`

/** The ids of the users of these names; names that nobody has are left out. */
export async function userIdsNamed({ db }: Pick<UserDeps, 'db'>, names: readonly string[]): Promise<number[]> {
  const rows = await db.prisma.user.findMany({
    where: { usernameKey: { in: names.map(nameKey) } },
    select: { id: true },
  })
  return rows.map((row) => row.id)
}

/** The names of users, deleted ones too, by id. */
export async function userNames({ db }: Pick<UserDeps, 'db'>, ids: readonly number[]): Promise<Map<number, string>> {
  const rows = await db.prisma.user.findMany({ where: { id: { in: [...ids] } }, select: { id: true, username: true } })
  return new Map(rows.map((row) => [row.id, row.username]))
}

/** Who owns what this principal makes: the user himself; for programs the system administrator with the lowest id. */
export async function ownerFor({ db }: Pick<UserDeps, 'db'>, principal: Principal): Promise<number> {
  if (principal.kind === 'user') return principal.id
  const [first] = await db.reads.rows(systemAdmins, [roles.systemAdmin.id])
  if (first === undefined) throw new Error('there is no system administrator; ensureAdmin makes the first one')
  return first.id
}

/** Whether somebody other than the administrator of the installation has an account. */
export const hasPeople = async (db: Pick<Database['prisma'], 'user'>): Promise<boolean> =>
  (await db.user.findFirst({ where: { id: { not: adminId }, deletedAt: null }, select: { id: true } })) !== null

/**
 * Whether a user name or an e-mail address is taken, as Harbor's sign-up page asks; the first administrator is never found.
 * @param target `username` or `email`; for anything else, whether there is any user.
 */
export async function isTaken({ db }: Pick<UserDeps, 'db'>, target: string, value: string): Promise<boolean> {
  const key = nameKey(value)
  const by = target === 'username' ? { usernameKey: key } : target === 'email' ? { emailKey: key } : {}
  return (await db.prisma.user.count({ where: { ...by, id: { not: adminId }, deletedAt: null } })) > 0
}

const userExists = statement<{ id: number }>('identity: user exists', 'select id from identity.users where id = $1')
const lockFirst = statement('identity: administrators lock', 'select pg_advisory_xact_lock($1)')
const insertAdmin = statement(
  'identity: first administrator',
  `with admin as (
     insert into identity.users (id, username, username_key, realname, comment)
     values ($1, 'admin', 'admin', 'system admin', 'admin user') returning id),
   identity as (insert into identity.identities (user_id, provider, subject) select id, $2, 'admin' from admin),
   password as (insert into identity.credentials (user_id, kind, version, hash, salt) select id, 'password', $3, $4, $5 from admin)
   insert into identity.grants (principal_kind, principal_id, node_kind, role_id) select 'user', id, 'system', $6 from admin`,
)
// Harbor's id 2 was its anonymous user; people's ids begin with 3 there.
const leaveIds = statement(
  'identity: ids of people',
  `select setval(pg_get_serial_sequence('identity.users', 'id'), greatest(2, (select max(id) from identity.users)))`,
)

/**
 * Makes the first administrator (`admin`, id 1, as Harbor's) with this password where there is no user 1; otherwise the password
 * is left as it is. Any number of replicas may call it at once.
 * @throws badRequest for a password against the rule.
 */
export async function ensureAdmin(db: Database, password: string): Promise<'created' | 'present'> {
  if (await db.reads.one(userExists, [adminId])) return 'present'
  requirePasswordRule(password)
  const { version, hash, salt } = await hashPassword(password)
  return db.transaction(async (tx) => {
    await tx.rows(lockFirst, [administratorsLock])
    if (await tx.one(userExists, [adminId])) return 'present'
    await tx.rows(insertAdmin, [adminId, localProvider, version, hash, salt, roles.systemAdmin.id])
    await tx.rows(leaveIds, [])
    return 'created'
  })
}

type UserRow = Pick<
  Prisma.UserGetPayload<object>,
  'id' | 'username' | 'email' | 'realname' | 'comment' | 'disabledAt' | 'createdAt' | 'updatedAt'
>

const insertUser = (tx: Transaction, data: Prisma.UserUncheckedCreateInput, stored: StoredSecret) =>
  tx.user.create({
    data: {
      ...data,
      identities: { create: { provider: localProvider, subject: String(data.usernameKey) } },
      credentials: { create: { kind: 'password', ...stored } },
    },
  })

async function replacePassword(tx: Transaction, userId: number, stored: StoredSecret) {
  await tx.credential.deleteMany({ where: { userId, kind: 'password' } })
  // A new row and not new values: sessions know the password they began with by its id.
  await tx.credential.create({ data: { userId, kind: 'password', ...stored } })
}

async function requireUser(tx: Transaction, id: number): Promise<UserRow> {
  const row = await tx.user.findFirst({ where: { id, deletedAt: null } })
  if (!row) throw problems.notFound({ resource: 'user', id })
  return row
}

const lockAdministrators = (tx: Transaction) => tx.$executeRaw`select pg_advisory_xact_lock(${administratorsLock})`

const systemAdminGrant = (userId: number) => ({
  principalKind: 'user',
  principalId: userId,
  nodeKind: 'system',
  roleId: roles.systemAdmin.id,
  effect: 'allow',
})

const grantSystemAdmin = (tx: Transaction, userId: number) => tx.grant.create({ data: systemAdminGrant(userId) })

async function systemAdminsAmong(tx: Pick<Transaction, 'grant'>, ids: readonly number[]): Promise<Set<number>> {
  const where = { ...systemAdminGrant(0), principalId: { in: [...ids] } }
  const rows = await tx.grant.findMany({ where, select: { principalId: true } })
  return new Set(rows.map((row) => row.principalId))
}

const systemAdmins = statement<{ id: number }>(
  'identity: system administrators',
  `select u.id from identity.grants g join identity.users u on u.id = g.principal_id
    where g.principal_kind = 'user' and g.node_kind = 'system' and g.role_id = $1 and g.effect = 'allow'
      and (g.expires_at is null or g.expires_at > now()) and u.deleted_at is null and u.disabled_at is null
    order by u.id`,
)

async function requireAnotherAdministrator(tx: Transaction, id: number) {
  const active = await tx.$queryRawUnsafe<{ id: number }[]>(systemAdmins.text, roles.systemAdmin.id)
  if (active.some((other) => other.id !== id)) return
  throw problems.preconditionFailed({ message: 'the last system administrator must stay one' })
}

async function orConflict<T>(change: Promise<T>, message: string): Promise<T> {
  try {
    return await change
  } catch (error) {
    throw isUniqueViolation(error) ? problems.conflict({ message }, { cause: error }) : error
  }
}

function forget({ authorities, signIn }: UserDeps) {
  authorities.forget()
  signIn.remembered.forget()
}

const ref = (row: UserRow) => ({ id: BigInt(row.id), name: row.username })

const facts = (row: UserRow, systemAdmins: ReadonlySet<number>): UserFacts => ({
  id: row.id,
  username: row.username,
  email: row.email,
  realname: row.realname,
  comment: row.comment,
  systemAdmin: systemAdmins.has(row.id),
  disabled: row.disabledAt !== null,
  createdAt: row.createdAt,
  updatedAt: row.updatedAt,
})
