import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'

const NONCE_BYTES = 18
const TAG_BYTES = 24

/**
 * Proves that a request with a cookie comes from a page that could read our answers. The browser holds a nonce in a cookie, the
 * page a token made of the nonce, the signed-in session and a key of ours; neither fits another browser or another session.
 * Nothing is stored, so any replica can check it.
 */
export class Csrf {
  readonly #key: Buffer

  /** @param secret any number of secret bytes, the same in all replicas. */
  constructor(secret: Buffer) {
    this.#key = Buffer.from(hkdfSync('sha256', secret, '', 'haven csrf', 32))
  }

  newNonce(): string {
    const nonce = randomBytes(NONCE_BYTES)
    return `${nonce.toString('base64url')}.${this.#tag('nonce', nonce.toString('base64url')).toString('base64url')}`
  }

  /** Whether a cookie's nonce is one that we gave out. */
  isNonce(cookie: string | undefined): cookie is string {
    if (cookie === undefined) return false
    const [nonce = '', tag = ''] = cookie.split('.', 2)
    return same(Buffer.from(tag, 'base64url'), this.#tag('nonce', nonce))
  }

  /** A token, different each time, so that compressed answers do not give it away letter by letter (BREACH). */
  token(nonce: string, session: string): string {
    const pad = randomBytes(TAG_BYTES)
    const tag = this.#tag('token', nonce, session)
    return Buffer.concat([pad, xor(pad, tag)]).toString('base64')
  }

  check(token: string, nonce: string, session: string): boolean {
    const bytes = Buffer.from(token, 'base64')
    if (bytes.length !== 2 * TAG_BYTES) return false
    return same(xor(bytes.subarray(0, TAG_BYTES), bytes.subarray(TAG_BYTES)), this.#tag('token', nonce, session))
  }

  /** The id of a visitor who has not signed in: worth nothing, stored nowhere, but known to be ours. */
  newVisitor(): string {
    const id = randomBytes(NONCE_BYTES).toString('base64url')
    return `v.${id}.${this.#tag('visitor', id).toString('base64url')}`
  }

  isVisitor(sid: string): boolean {
    const [kind, id = '', tag = ''] = sid.split('.', 3)
    return kind === 'v' && same(Buffer.from(tag, 'base64url'), this.#tag('visitor', id))
  }

  #tag(...parts: string[]): Buffer {
    return createHmac('sha256', this.#key).update(JSON.stringify(parts)).digest().subarray(0, TAG_BYTES)
  }
}

const same = (a: Buffer, b: Buffer) => a.length === b.length && timingSafeEqual(a, b)
const xor = (a: Buffer, b: Buffer) => a.map((byte, i) => byte ^ (b[i] ?? 0)) as Buffer
