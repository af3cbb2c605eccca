import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { problems } from '@haven/errors'

const IV_BYTES = 12
const TAG_BYTES = 16
const PREFIX = 'v1.'

/**
 * The key that seals secrets at rest, from its setting (base64 of 32 bytes).
 * @throws problems.keyUnreadable
 */
export function encryptionKey(base64: string, setting = 'HAVEN_ENCRYPTION_KEY'): Buffer {
  const key = Buffer.from(base64, 'base64')
  // Buffer.from skips what is no base64, so a damaged key would otherwise become another, shorter key.
  if (key.length !== 32 || key.toString('base64').replaceAll('=', '') !== base64.trim().replaceAll('=', '')) {
    throw problems.keyUnreadable({ setting, reason: 'it is not the base64 of 32 bytes' })
  }
  return key
}

/** Encrypts and authenticates a text (AES-256-GCM). The answer is text that carries its version; equal plaintexts differ. */
export function seal(key: Buffer, plain: string): string {
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, iv)
  const encrypted = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()])
  return PREFIX + Buffer.concat([iv, cipher.getAuthTag(), encrypted]).toString('base64url')
}

/** The text that was sealed. Throws when the key is another one or the sealed text was altered. */
export function open(key: Buffer, sealed: string): string {
  if (!sealed.startsWith(PREFIX)) throw new Error('not a sealed text of a known version')
  const bytes = Buffer.from(sealed.slice(PREFIX.length), 'base64url')
  if (bytes.length < IV_BYTES + TAG_BYTES) throw new Error('a sealed text is too short')
  const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES })
  decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES))
  return decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
}
