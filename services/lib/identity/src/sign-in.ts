import { createHmac, randomBytes } from 'node:crypto'
import { statement, TwoGenerations, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { RobotRefusal, RobotSignInRefusedSchema } from '@haven/proto/events'
import type { Redis } from 'ioredis'
import type { LdapClient } from './directories/ldap-connection.ts'
import type { LdapDirectory } from './directories/ldap.ts'
import { LastUses } from './last-uses.ts'
import { signInByLdap } from './ldap-accounts.ts'
import { canBeUsername, nameKey } from './names.ts'
import { proveCliSecret, type OidcSignIn } from './oidc-accounts.ts'
import { hashPassword, isOutdated, verifyNothing, verifySecret, type StoredSecret } from './passwords.ts'
import { anonymous, type Principal } from './principal.ts'
import { ProvedSecrets } from './proved-secrets.ts'
import { LoginThrottle } from './throttle.ts'
import { adminId } from './users.ts'

export type SignedIn = Extract<Principal, { kind: 'user' | 'robot' }>

export type SignInInput = {
  readonly name: string
  readonly password: string
  /** Of the client, without port. */
  readonly address: string
  /** Its User-Agent, shown with the credential's last use. */
  readonly agent?: string | undefined
  /** Whether the secret for command line clients of somebody who signs in by OIDC will do, too. Default: yes. */
  readonly cliSecret?: boolean
}

export type LdapSignIn = {
  readonly client: LdapClient
  /** Where people without a password of ours are looked for; null: nowhere. */
  readonly directory: () => Promise<LdapDirectory | null>
}

export type SignInDeps = {
  readonly db: Database
  readonly throttle: LoginThrottle
  readonly remembered: RememberedSignIns
  readonly proved: ProvedSecrets
  readonly uses: LastUses
  /** What a robot's name begins with: the configuration's `robot_name_prefix`. */
  readonly robotPrefix: () => Promise<string>
  /** Null: the installation has no way to a directory. */
  readonly ldap: LdapSignIn | null
  /** Null: the installation has no way to a provider. */
  readonly oidc: OidcSignIn | null
}

/** What `signIn` needs, one for each process: it remembers and counts. */
export function signInDeps(
  db: Database,
  options: {
    redis?: Redis | null
    redisPrefix?: string
    robotPrefix?: () => Promise<string>
    ldap?: LdapSignIn | null
    oidc?: OidcSignIn | null
  } = {},
): SignInDeps & Disposable & AsyncDisposable {
  const remembered = new RememberedSignIns(db)
  const uses = new LastUses(db)
  return {
    db,
    remembered,
    proved: new ProvedSecrets(),
    uses,
    throttle: new LoginThrottle({
      redis: options.redis ?? null,
      ...(options.redisPrefix !== undefined && { prefix: options.redisPrefix }),
    }),
    robotPrefix: options.robotPrefix ?? (() => Promise.resolve('robot$')),
    ldap: options.ldap ?? null,
    oidc: options.oidc ?? null,
    [Symbol.dispose]() {
      remembered[Symbol.dispose]()
      uses[Symbol.dispose]()
    },
    async [Symbol.asyncDispose]() {
      remembered[Symbol.dispose]()
      await uses[Symbol.asyncDispose]()
    },
  }
}

const maxAgeMs = 60_000
const maxNameLength = 255

/**
 * Who proved who he is with a password, for a minute, so that Basic on every request costs no statement (P21). Kept under a key that only
 * this process knows; a changed, disabled or deleted user, robot or credential and a changed setting drop everything at once, and each is
 * then proved anew: by `ProvedSecrets` that costs a statement and no hash. A directory announces nothing: who was locked there, or got
 * another password or other groups, is the old one for this minute. Failures are not kept: they stay as slow as the hash.
 */
export class RememberedSignIns implements Disposable {
  readonly #secret = randomBytes(32)
  readonly #kept = new TwoGenerations<{ proved: Proved; untilMs: number }>(10_000, Infinity, undefined, 'sign-ins')
  readonly #running = new Map<string, Promise<Proved>>()
  readonly #now: () => number
  readonly #stop: () => void
  #epoch = 0

  constructor(db: Database, now: () => number = Date.now) {
    this.#now = now
    this.#stop = db.announcements.on((table) => {
      if (table === 'lost' || watched.has(table)) this.forget()
    })
  }

  /** Drops everything: for a caller that has just changed a password and must not wait for the announcement. */
  forget(): void {
    this.#epoch++
    this.#kept.clear()
    this.#running.clear()
  }

  /** The answer that is kept, or that of `verify`; requests with the same name and password share one check. */
  async of(name: string, password: string, verify: () => Promise<Proved>): Promise<Proved> {
    const key = createHmac('sha256', this.#secret).update(`${name.length}:${name}${password}`).digest('base64url')
    const kept = this.#kept.get(key)
    if (kept && this.#now() < kept.untilMs) return kept.proved
    const running = this.#running.get(key)
    if (running) return running
    const epoch = this.#epoch
    const untilMs = this.#now() + maxAgeMs
    const verifying = verify()
    this.#running.set(key, verifying)
    try {
      const proved = await verifying
      if (epoch === this.#epoch) this.#kept.set(key, { proved, untilMs })
      return proved
    } finally {
      if (this.#running.get(key) === verifying) this.#running.delete(key)
    }
  }

  [Symbol.dispose](): void {
    this.#stop()
  }
}

const watched = new Set(['identity.users', 'identity.credentials', 'identity.robots', 'system.settings'])

/**
 * Proves a user (name or e-mail and password) or a robot (prefixed name and secret). The answer to a wrong password, an unknown
 * name, a disabled account is the same, and takes the same time for users.
 * @throws unauthorized; tooManyRequests after too many wrong guesses for this account from this block of addresses.
 */
export async function signIn(deps: SignInDeps, input: SignInInput): Promise<SignedIn> {
  const { name, password, address } = input
  // Nobody is called by a name with NUL, and Postgres could not be asked for it (threats.md A77).
  if (name === '' || name.length > maxNameLength || name.includes('\0') || password === '') throw refused()
  const { principal, credentialId, isCliSecret } = await deps.remembered.of(name, password, async () => {
    const prefix = await deps.robotPrefix()
    const isRobot = prefix !== '' && name.startsWith(prefix)
    // Disposed when Postgres is away or the hashing pool full, too: an attempt left open would count until this process ends.
    using attempt = await deps.throttle.begin(isRobot ? name : nameKey(name), address)
    const proved = isRobot ? await proveRobot(deps, name.slice(prefix.length), input) : await proveUser(deps, input)
    if (proved === null) {
      await attempt.failed()
      throw refused()
    }
    await attempt.succeeded()
    return proved
  })
  if (isCliSecret && input.cliSecret === false) throw refused()
  if (credentialId !== null) deps.uses.note(credentialId, input)
  return principal
}

const refused = () => problems.unauthorized({ message: 'incorrect user name or password' })

/** `credentialId` null: another than we keeps the secret. */
type Proved = {
  readonly principal: SignedIn
  readonly credentialId: number | null
  readonly isCliSecret?: boolean
}

/**
 * The providers in their order: whoever has a password of ours is asked for that and no other, so that the local administrator gets in
 * whatever a directory says; everybody else is the directory's, where there is one.
 */
async function proveUser({ db, ldap, oidc, proved }: SignInDeps, input: SignInInput): Promise<Proved | null> {
  const { name, password } = input
  const [row] = await db.reads.rows(userByLogin, [nameKey(name)])
  if (!row || row.credentialId === null) {
    const directory = ldap === null || row?.id === adminId ? null : await ldap.directory()
    if (ldap && directory) {
      const account = await signInByLdap(db, ldap.client, directory, input)
      if (!account || account.disabled) return null
      return { principal: { kind: 'user', id: account.id, name: account.name }, credentialId: null }
    }
    const secretId =
      row && oidc && row.id !== adminId ? await proveCliSecret(db, oidc, row.id, password, input.address) : null
    if (row && secretId !== null) {
      if (row.disabled) return null
      return { principal: { kind: 'user', id: row.id, name: row.name }, credentialId: secretId, isCliSecret: true }
    }
    await verifyNothing(password)
    return null
  }
  const { credentialId, version, hash, salt } = row as UserRow & { version: string; hash: string; salt: string }
  const right = await belongs(proved, { version, hash, salt }, password, { active: !row.disabled })
  if (!right || row.disabled) return null
  if (isOutdated({ version, hash, salt }))
    await replaceHash(db, credentialId as number, hash, await hashPassword(password))
  return { principal: { kind: 'user', id: row.id, name: row.name }, credentialId: credentialId as number }
}

/** Who may not sign in is refused as slowly as a wrong password is: else the time would tell that this one is right. */
const belongs = (proved: ProvedSecrets, stored: StoredSecret, secret: string, { active }: { active: boolean }) =>
  active ? proved.verify(stored, secret) : verifySecret(stored, secret)

/**
 * Robots may have several valid secrets, so that one can be exchanged without an outage. Why one is refused goes to the audit log and
 * not to whoever tries. A generated secret costs microseconds to check; that an unknown robot is refused as fast shows nothing worth
 * knowing.
 */
async function proveRobot(deps: SignInDeps, key: string, input: SignInInput): Promise<Proved | null> {
  const { db, proved } = deps
  const { name, password } = input
  const rows = await db.reads.rows(robotByName, [key])
  const [robot] = rows
  // The prefix can be changed to one that names of people begin with, too.
  if (!robot) return canBeUsername(name) ? proveUser(deps, input) : null
  let credentialId: number | null = null
  const active = !robot.disabled && !robot.expired
  for (const row of rows) {
    if (row.credentialId === null) continue
    const { credentialId: id, version, hash, salt } = row as RobotRow & StoredSecret
    if ((await belongs(proved, { version, hash, salt }, password, { active })) && credentialId === null)
      credentialId = id
  }
  const principal: SignedIn = { kind: 'robot', id: robot.id, name, projectId: robot.projectId }
  const reason = refusalOf(robot, credentialId)
  if (reason === null && credentialId !== null) return { principal, credentialId }
  const source = { principal: credentialId === null ? anonymous : principal, address: input.address }
  await emit(db.writes, RobotSignInRefusedSchema, source, {
    robot: { id: BigInt(robot.id), name },
    ...(robot.projectId !== null && { project: { id: BigInt(robot.projectId), name: key.split('+')[0]! } }),
    reason: reason ?? RobotRefusal.UNSPECIFIED,
  })
  return null
}

function refusalOf({ disabled, expired }: RobotRow, credentialId: number | null): RobotRefusal | null {
  if (credentialId === null) return RobotRefusal.WRONG_SECRET
  if (disabled) return RobotRefusal.DISABLED
  return expired ? RobotRefusal.EXPIRED : null
}

/** A robot by the name that clients send, whether it may do something or not. Null: there is none. */
export async function findRobotByName(
  { db, robotPrefix }: Pick<SignInDeps, 'db' | 'robotPrefix'>,
  name: string,
): Promise<Extract<Principal, { kind: 'robot' }> | null> {
  const prefix = await robotPrefix()
  if (!name.startsWith(prefix)) return null
  const row = await db.prisma.robot.findUnique({ where: { nameKey: name.slice(prefix.length) } })
  return row && { kind: 'robot', id: row.id, name, projectId: row.projectId }
}

/** Only while the hash is still the one that was checked: the password may have been changed meanwhile. */
const replaceHash = (db: Database, credentialId: number, checked: string, next: StoredSecret) =>
  db.writes.rows(upgradeHash, [credentialId, checked, next.version, next.hash, next.salt])

type UserRow = {
  id: number
  name: string
  disabled: boolean
  credentialId: number | null
  version: string | null
  hash: string | null
  salt: string | null
}

// A name wins over an e-mail address: else somebody's e-mail could be chosen to be another's name.
const userByLogin = statement<UserRow>(
  'identity: user by login',
  `select u.id, u.username as name, u.disabled_at is not null as disabled, c.id as "credentialId", c.version, c.hash, c.salt
     from identity.users u
     left join identity.credentials c
       on c.user_id = u.id and c.kind = 'password' and c.revoked_at is null and (c.expires_at is null or c.expires_at > now())
    where (u.username_key = $1 or u.email_key = $1) and u.deleted_at is null
    order by (u.username_key = $1) desc, c.id desc nulls last
    limit 1`,
)

type RobotRow = {
  id: number
  projectId: number | null
  disabled: boolean
  expired: boolean
  credentialId: number | null
  version: string | null
  hash: string | null
  salt: string | null
}

const robotByName = statement<RobotRow>(
  'identity: robot by name',
  `select r.id, r.project_id as "projectId", r.disabled_at is not null as disabled,
          coalesce(r.expires_at <= now(), false) as expired, c.id as "credentialId", c.version, c.hash, c.salt
     from identity.robots r
     left join identity.credentials c
       on c.robot_id = r.id and c.kind = 'robot-secret' and c.revoked_at is null and (c.expires_at is null or c.expires_at > now())
    where r.name_key = $1 and r.deleted_at is null
    order by c.id desc nulls last
    limit 5`,
)

const upgradeHash = statement(
  'identity: upgrade a hash',
  `update identity.credentials set version = $3, hash = $4, salt = $5 where id = $1::int and hash = $2`,
)
