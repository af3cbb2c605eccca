import { timingSafeEqual } from 'node:crypto'
import { statement, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { UserUpdatedSchema } from '@haven/proto/events'
import { issuerOf, type OidcClient, type OidcPerson, type OidcProvider, type OidcTokens } from './directories/oidc.ts'
import { ensureGroups, syncMemberships } from './groups.ts'
import { nameKey } from './names.ts'
import { onboard, type Account } from './onboard.ts'
import { generateSecret, requirePasswordRule } from './passwords.ts'
import type { Sealer } from './signing-keys.ts'
import type { UserDeps } from './users.ts'

/** How people sign in by OIDC. */
export type OidcSignIn = {
  readonly client: OidcClient
  readonly sealer: Sealer
  /** Null: nobody signs in by it. */
  readonly provider: () => Promise<OidcProvider | null>
}

/** Beside Harbor's `oidc_user_meta`: how OIDC knows a user, and the secret for command line clients. */
export type OidcMeta = {
  readonly id: number
  readonly issuer: string
  readonly subject: string
  readonly secret: string
  readonly createdAt: Date
  readonly updatedAt: Date
}

const kind = 'oidc'
/** Of identities: the issuer is part of it, so that (provider, subject) is one person and no text joined of both (threats.md A64). */
const providerKey = (issuer: string) => `${kind}:${issuer}`

type Deps = { readonly db: Database; readonly sealer: Sealer }

/** The account that this issuer's subject has; null before it was onboarded. Never found by a name or an address (threats.md A64). */
export async function findOidcAccount({ db }: Pick<Deps, 'db'>, person: OidcPerson): Promise<Account | null> {
  const by = { provider: providerKey(person.issuer), subject: person.subject }
  const row = await db.prisma.identity.findUnique({ where: { provider_subject: by }, include: { user: true } })
  return row && { id: row.user.id, name: row.user.username, disabled: row.user.disabledAt !== null }
}

/**
 * The account of somebody who signed in at the provider, made with this name when there is none. His groups, tokens and address are the
 * provider's as of now, and he has a secret for command line clients.
 * @throws conflict when another account has the name; badRequest for a name that nobody may have.
 */
export async function signInByOidc(
  deps: Deps,
  source: EventSource,
  signedIn: { readonly person: OidcPerson; readonly tokens: OidcTokens; readonly username: string },
): Promise<Account> {
  const { db, sealer } = deps
  const { person, tokens, username } = signedIn
  const { subject, realname, email } = person
  const provider = providerKey(person.issuer)
  const comment = 'Onboarded via OIDC provider'
  const account = await onboard(db, source, { provider, subject, username, realname, email, comment })
  await db.prisma.identity.update({
    where: { provider_subject: { provider, subject } },
    data: { sealedTokens: sealer.seal(JSON.stringify(tokens)), askAfter: new Date(tokens.expiresAtMs) },
  })
  await ensureCliSecret(deps, account.id)
  await syncGroups(db, source, account.id, person.groups)
  return account
}

/** Whether this name is for the provider to prove: nobody's, or of somebody who has no password of ours. */
export async function isProvedByOidc({ db }: Pick<Deps, 'db'>, name: string): Promise<boolean> {
  const key = nameKey(name)
  const where = {
    user: { deletedAt: null, OR: [{ usernameKey: key }, { emailKey: key }] },
    kind: 'password',
    revokedAt: null,
  }
  return (await db.prisma.credential.findFirst({ where, select: { id: true } })) === null
}

/** Whom an ID token of the provider proves. Null: nobody who was onboarded, or no such token. @throws identityProviderFailed */
export async function proveIdToken(
  db: Database,
  { client, provider }: OidcSignIn,
  idToken: string,
): Promise<{ kind: 'user'; id: number; name: string } | null> {
  const at = await provider()
  const subject = at && (await client.subjectOf(at, idToken))
  if (!at || subject === null) return null
  const row = await db.reads.one(userBySubject, [providerKey(issuerOf(at)), subject])
  return row && { kind: 'user', ...row }
}

/**
 * Whether this is the user's secret for command line clients and the provider still vouches for the user: it is asked each time that its
 * last word is over. Null: another secret, or none. Answers the secret's credential.
 * @throws unauthorized that says what to do when the provider vouches no more; serviceUnavailable when it cannot be asked.
 */
export async function proveCliSecret(
  db: Database,
  signIn: OidcSignIn,
  userId: number,
  secret: string,
  address: string,
): Promise<number | null> {
  const provider = await signIn.provider()
  if (!provider) return null
  const row = await db.reads.one(cliSecretOf, [userId, providerKey(issuerOf(provider))])
  if (!row || !sameText(signIn.sealer.open(row.sealedSecret), secret)) return null
  const source: EventSource = { principal: { kind: 'service', name: kind }, address }
  if (!(await isVouchedFor(db, signIn, provider, source, row.identityId))) {
    throw problems.unauthorized({
      message:
        'the identity provider no longer vouches for this account: sign in on the web page of this registry once, then use the CLI secret again',
    })
  }
  return row.credentialId
}

/**
 * Gives a user another secret for command line clients, a generated one when none is given.
 * @throws badRequest for one against the rule on passwords; notFound for who does not sign in by OIDC
 */
export async function setCliSecret(
  deps: Pick<UserDeps, 'db' | 'authorities' | 'signIn'> & Pick<Deps, 'sealer'>,
  source: EventSource,
  userId: number,
  secret: string,
): Promise<void> {
  if (secret !== '') requirePasswordRule(secret)
  await deps.db.prisma.$transaction(async (tx) => {
    const user = await tx.user.findFirst({
      where: { id: userId, deletedAt: null, identities: { some: { provider: { startsWith: `${kind}:` } } } },
    })
    if (!user) throw problems.notFound({ message: `user ${userId} does not sign in by OIDC` })
    await tx.credential.deleteMany({ where: { userId, kind: 'cli-secret' } })
    await tx.credential.create({ data: cliSecret(deps.sealer, userId, secret || generateSecret()) })
    await emit(tx, UserUpdatedSchema, source, {
      user: { id: BigInt(userId), name: user.username },
      fields: ['cli_secret'],
    })
  })
  deps.signIn.remembered.forget()
}

/** How OIDC knows the user; null when it does not. For the user's own eyes: the secret is in it. */
export async function findOidcMeta({ db, sealer }: Deps, userId: number): Promise<OidcMeta | null> {
  const [identity, credential] = await Promise.all([
    db.prisma.identity.findFirst({
      where: { userId, provider: { startsWith: `${kind}:` } },
      orderBy: { lastUsedAt: { sort: 'desc', nulls: 'last' } },
    }),
    db.prisma.credential.findFirst({ where: { userId, kind: 'cli-secret' }, orderBy: { id: 'desc' } }),
  ])
  if (!identity) return null
  return {
    id: identity.id,
    issuer: identity.provider.slice(kind.length + 1),
    subject: identity.subject,
    secret: credential ? sealer.open(credential.hash) : '',
    createdAt: identity.createdAt,
    updatedAt: credential?.createdAt ?? identity.createdAt,
  }
}

/** What the provider gave when the user signed in last; null when there is nothing. */
export async function findOidcTokens(
  { db, sealer }: Deps,
  provider: OidcProvider,
  userId: number,
): Promise<OidcTokens | null> {
  const where = { userId, provider: providerKey(issuerOf(provider)) }
  const row = await db.prisma.identity.findFirst({ where, orderBy: { id: 'desc' } })
  return row?.sealedTokens ? (JSON.parse(sealer.open(row.sealedTokens)) as OidcTokens) : null
}

/** While one asks, the others wait for no answer longer than this. */
const askingMs = 30_000

async function isVouchedFor(
  db: Database,
  { client, sealer }: OidcSignIn,
  provider: OidcProvider,
  source: EventSource,
  identityId: number,
): Promise<boolean> {
  // A refresh token often works once: of all who find the provider's last word over, one asks, and the others still go by it.
  const [claimed] = await db.writes.rows(claimQuestion, [identityId, new Date(Date.now() + askingMs)])
  if (!claimed) return (await db.writes.one(hasTokens, [identityId])) !== null
  const { refreshToken } = JSON.parse(sealer.open(claimed.sealedTokens)) as OidcTokens
  // Written only while the tokens are those that were asked with: the user may have signed in again meanwhile.
  const conclude = (tokens: OidcTokens | null, askAfter: Date | null) =>
    db.writes.rows(concludeQuestion, [
      identityId,
      claimed.sealedTokens,
      tokens && sealer.seal(JSON.stringify(tokens)),
      askAfter,
    ])
  try {
    const answer = refreshToken === null ? null : await client.refresh(provider, refreshToken, claimed.subject)
    if (answer === null) {
      await conclude(null, null)
      return false
    }
    const { person, tokens } = answer
    await conclude(tokens, new Date(tokens.expiresAtMs))
    if (person) await syncGroups(db, source, claimed.userId, person.groups)
    return true
  } catch (cause) {
    if (!problems.identityProviderFailed.is(cause)) throw cause
    await db.writes.rows(askAgain, [identityId])
    const message = 'the identity provider cannot be asked at the moment'
    throw problems.serviceUnavailable({ message }, { cause })
  }
}

async function syncGroups(db: Database, source: EventSource, userId: number, names: readonly string[]): Promise<void> {
  const groups = names.map((name) => ({ name }))
  await syncMemberships(db, userId, kind, await ensureGroups({ db }, source, kind, groups))
}

async function ensureCliSecret({ db, sealer }: Deps, userId: number): Promise<void> {
  if ((await db.prisma.credential.count({ where: { userId, kind: 'cli-secret' } })) > 0) return
  await db.prisma.credential.create({ data: cliSecret(sealer, userId, generateSecret()) })
}

const cliSecret = (sealer: Sealer, userId: number, secret: string) => ({
  userId,
  kind: 'cli-secret',
  version: 'sealed',
  hash: sealer.seal(secret),
})

function sameText(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

const userBySubject = statement<{ id: number; name: string }>(
  'identity: user by subject',
  `select u.id, u.username as name from identity.identities i join identity.users u on u.id = i.user_id
    where i.provider = $1 and i.subject = $2 and u.deleted_at is null`,
)

const cliSecretOf = statement<{ identityId: number; credentialId: number; sealedSecret: string }>(
  'identity: secret for command line clients',
  `select i.id as "identityId", c.id as "credentialId", c.hash as "sealedSecret"
     from identity.identities i join identity.credentials c on c.user_id = i.user_id
    where i.user_id = $1::int and i.provider = $2 and c.kind = 'cli-secret' and c.revoked_at is null
    order by c.id desc, i.id desc
    limit 1`,
)

const claimQuestion = statement<{ userId: number; subject: string; sealedTokens: string }>(
  'identity: claim the question to the provider',
  `update identity.identities set ask_after = $2
    where id = $1::int and sealed_tokens is not null and (ask_after is null or ask_after <= now())
   returning user_id as "userId", subject, sealed_tokens as "sealedTokens"`,
)

const hasTokens = statement<{ id: number }>(
  'identity: has tokens of the provider',
  'select id from identity.identities where id = $1::int and sealed_tokens is not null',
)

const concludeQuestion = statement(
  'identity: conclude the question to the provider',
  'update identity.identities set sealed_tokens = $3, ask_after = $4 where id = $1::int and sealed_tokens = $2',
)

const askAgain = statement(
  'identity: ask the provider again',
  'update identity.identities set ask_after = null where id = $1::int and sealed_tokens is not null',
)
