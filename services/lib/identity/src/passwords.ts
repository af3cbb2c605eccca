import { argon2, createHash, pbkdf2, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { problems } from '@haven/errors'

/** A row of identity.credentials, as far as checking it goes. */
export type StoredSecret = { readonly version: string; readonly hash: string; readonly salt: string }

const argon2id = { memory: 19_456, passes: 2, parallelism: 1, tagLength: 32 } as const
const saltBytes = 16
/** Nothing longer is hashed, so that a long text costs no more than a short one (threats.md A68). */
const maxSecretBytes = 1024

const runArgon2 = promisify(argon2)
const runPbkdf2 = promisify(pbkdf2)

/** Harbor's rule: 8 to 128 characters with at least one lower-case and one upper-case letter and one digit. */
export const meetsPasswordRule = (password: string): boolean =>
  password.length >= 8 &&
  password.length <= 128 &&
  /[a-z]/.test(password) &&
  /[A-Z]/.test(password) &&
  /[0-9]/.test(password)

/** @throws badRequest */
export function requirePasswordRule(password: string): void {
  if (!meetsPasswordRule(password)) {
    throw problems.badRequest({
      message:
        'the password or secret must be 8-128, inclusively, characters long with at least 1 uppercase letter, 1 lowercase letter and 1 number',
    })
  }
}

/** Hashes a text that a person chose. About 40 ms of CPU on a thread of its own. */
export async function hashPassword(password: string): Promise<StoredSecret> {
  const salt = randomBytes(saltBytes)
  const tag = await inTurn(() => runArgon2('argon2id', { ...argon2id, message: password, nonce: salt }))
  const { memory, passes, parallelism } = argon2id
  const text = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '')
  return {
    version: 'argon2id',
    hash: `$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$${text(salt)}$${text(tag)}`,
    salt: '',
  }
}

/** Hashes a secret of full randomness (`generateSecret`): guessing it is hopeless, so one round is enough and sign-in is cheap. */
export function hashRobotSecret(secret: string): StoredSecret {
  const salt = randomText(32)
  return { version: 'robot-sha256', hash: robotDigest(secret, salt).toString('hex'), salt }
}

/** Does the secret belong to the hash? Compared in constant time; a version that is not known is an error, not a no. */
export async function verifySecret(stored: StoredSecret, secret: string): Promise<boolean> {
  if (secret.length === 0 || Buffer.byteLength(secret) > maxSecretBytes) return false
  switch (stored.version) {
    case 'argon2id':
      return verifyArgon2(stored.hash, secret)
    case 'robot-sha256':
      return sameBytes(robotDigest(secret, stored.salt), Buffer.from(stored.hash, 'hex'))
    // Rows that came from a Harbor: PBKDF2, 16 bytes, the salt as text (harbor-jobs-and-data.md, harbor_user).
    case 'pbkdf2_sha256':
      return verifyPbkdf2(stored, secret, 600_000, 'sha256')
    case 'sha256':
      return verifyPbkdf2(stored, secret, 4096, 'sha256')
    case 'sha1':
      return verifyPbkdf2(stored, secret, 4096, 'sha1')
    default:
      throw new Error(`a credential has the unknown version ${stored.version}`)
  }
}

/** Whether checking it costs no more than remembering it: a secret of full randomness. */
export const isCheap = ({ version }: StoredSecret): boolean => version === 'robot-sha256'

/** Whether a password hash should be replaced when its password is at hand. */
export const isOutdated = (stored: StoredSecret): boolean => {
  const { memory, passes, parallelism } = argon2id
  return !stored.hash.startsWith(`$argon2id$v=19$m=${memory},t=${passes},p=${parallelism}$`)
}

let dummy: Promise<StoredSecret> | null = null

/** The work of checking a password, for a name that has none: otherwise the time of the answer would tell which names exist. */
export async function verifyNothing(secret: string): Promise<false> {
  dummy ??= hashPassword(generateSecret())
  await verifySecret(await dummy, secret)
  return false
}

/** 32 characters of a-z, A-Z, 0-9 with one of each at least (harbor-rbac.md §8). */
export function generateSecret(): string {
  for (;;) {
    const secret = randomText(32)
    if (meetsPasswordRule(secret)) return secret
  }
}

const alphabet = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'

const randomText = (length: number): string =>
  Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('')

const robotDigest = (secret: string, salt: string) => createHash('sha256').update(salt).update(secret).digest()

const sameBytes = (a: Buffer, b: Buffer) => a.length === b.length && timingSafeEqual(a, b)

async function verifyPbkdf2(stored: StoredSecret, secret: string, iterations: number, digest: string) {
  const key = await inTurn(() => runPbkdf2(secret, stored.salt, iterations, 16, digest))
  return sameBytes(key, Buffer.from(stored.hash, 'hex'))
}

async function verifyArgon2(stored: string, secret: string): Promise<boolean> {
  const match = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/.exec(stored)
  if (!match) throw new Error('an argon2id hash is not in the form that we write')
  const [, memory, passes, parallelism, salt, tag] = match as unknown as string[] & { length: 6 }
  const expected = Buffer.from(tag!, 'base64')
  const actual = await inTurn(() =>
    runArgon2('argon2id', {
      message: secret,
      nonce: Buffer.from(salt!, 'base64'),
      memory: Number(memory),
      passes: Number(passes),
      parallelism: Number(parallelism),
      tagLength: expected.length,
    }),
  )
  return sameBytes(actual, expected)
}

// Hashes run on the thread pool that also reads and writes blobs: a part of its four threads or more, half the machine at most, and a bounded
// queue.
const maxRunning = availableParallelism() > 2 ? 2 : 1
const maxWaiting = 256
let running = 0
const waiting: (() => void)[] = []

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (running >= maxRunning) {
    if (waiting.length >= maxWaiting) throw problems.tooManyRequests({ retryAfterSeconds: 5 })
    await new Promise<void>((resolve) => waiting.push(resolve)) // whoever ends hands his place over
  } else running++
  try {
    return await work()
  } finally {
    const next = waiting.shift()
    if (next) next()
    else running--
  }
}
