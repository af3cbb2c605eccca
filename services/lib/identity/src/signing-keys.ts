import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto'
import { promisify } from 'node:util'
import { statement, type Database, type Prisma } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { SigningKeyRotatedSchema } from '@haven/proto/events'

/** Seals and opens secrets at rest (`seal` and `open` of @haven/runtime with the installation's key). */
export type Sealer = { seal(plain: string): string; open(sealed: string): string }

const algorithm = 'RS256'
const modulusBits = 2048
const maxAgeMs = 5_000
const minReloadMs = 100
/** Other processes may sign with the old key until they have heard of the new one. */
const handoverMs = 120_000
const signingKeysLock = 0x68_69_73_6b

type VerifyingKey = { readonly key: KeyObject; readonly expiresAtMs: number }
type Loaded = {
  readonly verifying: ReadonlyMap<string, VerifyingKey>
  readonly newest: { readonly kid: string; readonly sealed: string } | null
  readonly at: number
}

const keysOfAlgorithm = statement<{
  kid: string
  publicPem: string
  privatePem: string
  retiredAt: Date | null
  expiresAt: Date | null
}>(
  'signing keys',
  `select kid, public_pem as "publicPem", private_pem as "privatePem", retired_at as "retiredAt", expires_at as "expiresAt"
     from identity.signing_keys where algorithm = $1 order by created_at desc, kid`,
)
const someKey = statement<{ kid: string }>(
  'signing keys: one that signs',
  'select kid from identity.signing_keys where retired_at is null limit 1',
)
const lockKeys = statement('signing keys: lock', 'select pg_advisory_xact_lock($1)')
const insertKey = statement(
  'signing keys: first',
  'insert into identity.signing_keys (kid, algorithm, public_pem, private_pem) values ($1, $2, $3, $4)',
)

/**
 * The keys that sign and verify bearer tokens, from the database. Only our own map of key ids is ever consulted: nothing a
 * token carries leads to a file or an address (threats.md R9).
 */
export class SigningKeys implements Disposable {
  readonly #db: Database
  readonly #sealer: Sealer | null
  readonly #now: () => number
  readonly #stop: () => void
  readonly #listeners = new Set<() => void>()
  readonly #public = new Map<string, KeyObject>()
  #loaded: Loaded | null = null
  #loading: Promise<Loaded> | null = null
  #private: { readonly kid: string; readonly key: KeyObject } | null = null
  #epoch = 0

  /** @param sealer for a process that signs; without it the keys only verify. */
  constructor(db: Database, sealer: Sealer | null = null, now: () => number = Date.now) {
    this.#db = db
    this.#sealer = sealer
    this.#now = now
    this.#stop = db.announcements.on((table) => {
      if (table === 'lost' || table === 'identity.signing_keys') this.forget()
    })
  }

  forget(): void {
    this.#epoch++
    this.#loaded = null
    this.#loading = null
    for (const listener of this.#listeners) listener()
  }

  /** Calls `listener` whenever the keys may have changed. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  /**
   * The newest key.
   * @throws keyUnreadable when it was sealed with another encryption key; an Error when there is none (`ensureSigningKey`).
   */
  async signing(): Promise<{ kid: string; key: KeyObject }> {
    if (!this.#sealer) throw new Error('these keys were opened for verifying only')
    const loaded = await this.#current()
    const { newest } = loaded
    if (!newest) throw new Error('there is no signing key; ensureSigningKey makes the first one')
    if (this.#private?.kid !== newest.kid)
      this.#private = { kid: newest.kid, key: openKey(this.#sealer, newest.sealed) }
    return this.#private
  }

  /** The public key of this id while it verifies; null for any other id. */
  async verifying(kid: string): Promise<VerifyingKey | null> {
    const known = (await this.#current()).verifying.get(kid)
    if (known) return known.expiresAtMs > this.#now() ? known : null
    // It may be newer than what we have. Whoever sends made-up ids shares one read in 100 ms with all others.
    const waitMs = (this.#loaded?.at ?? 0) + minReloadMs - this.#now()
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs))
    const before = this.#loaded
    if (before && this.#now() - before.at >= minReloadMs) this.#loaded = null
    return (await this.#current()).verifying.get(kid) ?? null
  }

  /** The public keys as RFC 7517 writes them. */
  async jwks(): Promise<{ keys: JsonWebKey[] }> {
    const { verifying } = await this.#current()
    return {
      keys: [...verifying]
        .filter(([, { expiresAtMs }]) => expiresAtMs > this.#now())
        .map(([kid, { key }]) => ({ ...key.export({ format: 'jwk' }), kid, alg: algorithm, use: 'sig' })),
    }
  }

  /** Parsing a PEM costs as much as a verification. There is a handful of keys in the life of a process. */
  #parsed(kid: string, pem: string): KeyObject {
    const key = this.#public.get(kid) ?? createPublicKey(pem)
    this.#public.set(kid, key)
    return key
  }

  async #current(): Promise<Loaded> {
    if (this.#loaded && this.#now() - this.#loaded.at < maxAgeMs) return this.#loaded
    this.#loading ??= this.#load()
    const loading = this.#loading
    try {
      return await loading
    } finally {
      if (this.#loading === loading) this.#loading = null
    }
  }

  async #load(): Promise<Loaded> {
    const epoch = this.#epoch
    const rows = await this.#db.reads.rows(keysOfAlgorithm, [algorithm])
    const newest = rows.find((row) => row.retiredAt === null)
    const loaded: Loaded = {
      verifying: new Map(
        rows.map((row) => [
          row.kid,
          {
            key: this.#parsed(row.kid, row.publicPem),
            expiresAtMs: row.expiresAt?.getTime() ?? Infinity,
          },
        ]),
      ),
      newest: newest ? { kid: newest.kid, sealed: newest.privatePem } : null,
      at: this.#now(),
    }
    if (epoch === this.#epoch) this.#loaded = loaded
    return loaded
  }

  [Symbol.dispose](): void {
    this.#stop()
  }
}

function openKey(sealer: Sealer, sealed: string): KeyObject {
  try {
    return createPrivateKey(sealer.open(sealed))
  } catch (cause) {
    throw problems.keyUnreadable(
      { setting: 'HAVEN_ENCRYPTION_KEY', reason: 'the key that signs tokens was sealed with another one' },
      { cause },
    )
  }
}

/** Makes the first key where there is none. Any number of replicas may call it at once. */
export async function ensureSigningKey(db: Database, sealer: Sealer): Promise<void> {
  if (await db.reads.one(someKey, [])) return
  const key = await makeKey(sealer)
  await db.transaction(async (tx) => {
    await tx.rows(lockKeys, [signingKeysLock])
    if (await tx.one(someKey, [])) return
    await tx.rows(insertKey, [key.kid, key.algorithm, key.publicPem, key.privatePem])
  })
}

type Rotation = {
  /** The longest lifetime of a token that was given out so far. */
  tokenLifetimeMs: number
  /** Who lets it be rotated, for the audit log. */
  source: EventSource
}

/**
 * Lets a new key sign from now on. The old ones verify until the last token that they signed is over, and are forgotten by a
 * later rotation.
 */
export async function rotateSigningKey(db: Database, sealer: Sealer, rotation: Rotation): Promise<{ kid: string }> {
  const key = await makeKey(sealer)
  await db.prisma.$transaction(async (tx) => {
    await lock(tx)
    await replaceKeys(tx, key, rotation)
  })
  return { kid: key.kid }
}

/**
 * As `rotateSigningKey`, if the newest key is older than `maxAgeMs`: null while it is not. Of any number of processes that ask at once, one
 * rotates. Forgets keys that verify nothing any more.
 * @throws keyUnreadable when the newest key was sealed with another encryption key: what we would seal nobody else could open.
 */
export async function rotateAgedSigningKey(
  db: Database,
  sealer: Sealer,
  { maxAgeMs, ...rotation }: Rotation & { maxAgeMs: number },
): Promise<{ kid: string } | null> {
  await forgetExpired(db.prisma)
  const seconds = maxAgeMs / 1000
  const aged = async (tx: Pick<Prisma.TransactionClient, '$queryRaw'>) => {
    const [newest] = await tx.$queryRaw<{ privatePem: string; aged: boolean }[]>`
      select private_pem as "privatePem", created_at < now() - make_interval(secs => ${seconds}::float8) as aged
        from identity.signing_keys where retired_at is null order by created_at desc limit 1`
    return newest?.aged === true ? newest : null
  }
  const old = await aged(db.prisma)
  if (!old) return null
  openKey(sealer, old.privatePem)
  const key = await makeKey(sealer)
  return db.prisma.$transaction(async (tx) => {
    await lock(tx)
    if (!(await aged(tx))) return null
    await replaceKeys(tx, key, rotation)
    return { kid: key.kid }
  })
}

async function replaceKeys(
  tx: Prisma.TransactionClient,
  key: Awaited<ReturnType<typeof makeKey>>,
  { tokenLifetimeMs, source }: Rotation,
): Promise<void> {
  const graceSeconds = Math.ceil((tokenLifetimeMs + handoverMs) / 1000)
  await tx.$executeRaw`
    update identity.signing_keys set retired_at = now(), expires_at = now() + make_interval(secs => ${graceSeconds}::int)
     where retired_at is null`
  await forgetExpired(tx)
  await tx.signingKey.create({ data: key })
  await emit(tx, SigningKeyRotatedSchema, source, { kid: key.kid })
}

const forgetExpired = (tx: Pick<Prisma.TransactionClient, '$executeRaw'>) =>
  tx.$executeRaw`delete from identity.signing_keys where expires_at < now()`

const lock = (tx: Prisma.TransactionClient) => tx.$executeRaw`select pg_advisory_xact_lock(${signingKeysLock})`

async function makeKey(sealer: Sealer) {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: modulusBits })
  return {
    kid: thumbprint(publicKey),
    algorithm,
    publicPem: publicKey.export({ type: 'spki', format: 'pem' }) as string,
    privatePem: sealer.seal(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string),
  }
}

/** RFC 7638. */
function thumbprint(key: KeyObject): string {
  const { e, kty, n } = key.export({ format: 'jwk' })
  return createHash('sha256').update(JSON.stringify({ e, kty, n })).digest('base64url')
}
