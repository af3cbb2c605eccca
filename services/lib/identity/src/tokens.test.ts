import { createHmac, createPublicKey, generateKeyPairSync, sign as rsaSign, type KeyObject } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { openDatabase } from '@haven/db'
import { problems } from '@haven/errors'
import { statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import jwt from 'jsonwebtoken'
import type { ProjectNode } from './principal.ts'
import { ensureSigningKey, rotateAgedSigningKey, rotateSigningKey, SigningKeys, type Sealer } from './signing-keys.ts'
import { tokenAllows, TokenIssuer, TokenVerifier, type TokenPrincipal } from './tokens.ts'

const sealer: Sealer = {
  seal: (plain) => `sealed:${Buffer.from(plain).toString('base64')}`,
  open: (sealed) => {
    if (!sealed.startsWith('sealed:')) throw new Error('sealed with another key')
    return Buffer.from(sealed.slice(7), 'base64').toString()
  },
}
const ann: TokenPrincipal = { kind: 'user', id: 3, name: 'ann' }
const access = [{ type: 'repository', name: 'library/app', actions: ['pull', 'push'] }]
const byTest = { principal: { kind: 'service', name: 'test' } } as const
const minutes = (n: number) => n * 60_000

describe('bearer tokens', () => {
  let database: TestDatabase
  let keys: SigningKeys
  let now = Date.now()
  let issuer: TokenIssuer
  let verifier: TokenVerifier
  let kid: string
  let privateKey: KeyObject
  let publicPem: string

  beforeAll(async () => {
    database = await testDatabase()
    await Promise.all([ensureSigningKey(database.db, sealer), ensureSigningKey(database.db, sealer)])
    keys = new SigningKeys(database.db, sealer, () => now)
    issuer = new TokenIssuer(keys, () => now)
    verifier = new TokenVerifier(keys, () => now)
    ;({ kid, key: privateKey } = await keys.signing())
    publicPem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }) as string
  })
  afterAll(async () => {
    keys[Symbol.dispose]()
    await database[Symbol.asyncDispose]()
  })

  /** The keys of the rotations that events told of since the last call. */
  const rotationsTold = async () => {
    const type = 'haven.events.v1.SigningKeyRotated'
    const told = await database.db.prisma.outboxEvent.findMany({ where: { type }, orderBy: { id: 'asc' } })
    await database.db.prisma.outboxEvent.deleteMany({ where: { type } })
    return told.map(({ payload }) => (payload as { kid: string }).kid)
  }
  const seconds = () => Math.floor(now / 1000)
  const claims = (change: Record<string, unknown> = {}) => {
    const all = {
      iss: 'harbor-token-issuer',
      aud: 'harbor-registry',
      sub: 'ann',
      iat: seconds(),
      nbf: seconds(),
      exp: seconds() + 600,
      jti: 'x',
      access,
      principal: { kind: 'user', id: 3 },
      ...change,
    }
    return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
  }
  const encode = (part: unknown) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const signed = (payload: unknown, header: Record<string, unknown> = {}, key: KeyObject = privateKey) => {
    const text = `${encode({ alg: 'RS256', typ: 'JWT', kid, ...header })}.${encode(payload)}`
    return `${text}.${rsaSign('RSA-SHA256', Buffer.from(text), key).toString('base64url')}`
  }
  const outcome = async (text: string) => {
    try {
      await verifier.verify(text)
      return 'accepted'
    } catch (error) {
      if (!problems.unauthorized.is(error)) throw error
      return error.message
    }
  }

  it('carry who and what, as Harbor and Distribution write them', async () => {
    const { token, expiresInSeconds, issuedAt } = await issuer.issue(ann, access, { lifetimeMs: minutes(30) })
    const { header, payload } = jwt.decode(token, { complete: true })!
    expect(header).toEqual({ alg: 'RS256', typ: 'JWT', kid })
    expect(payload).toMatchObject({ ...claims({ exp: seconds() + 1800 }), jti: expect.stringMatching(/^.{16}$/) })
    expect([expiresInSeconds, issuedAt.getTime()]).toEqual([1800, seconds() * 1000])
    expect(await verifier.verify(token)).toEqual({
      principal: ann,
      access,
      projects: new Map(),
      issuedAt,
      expiresAt: new Date(issuedAt.getTime() + 1_800_000),
    })
  })

  it.each<TokenPrincipal>([
    { kind: 'anonymous' },
    { kind: 'robot', id: 4, name: 'robot$ci', projectId: null },
    { kind: 'robot', id: 5, name: 'robot$library+ci', projectId: 1 },
  ])('bring the principal back: $kind $name', async (principal) => {
    const { token } = await issuer.issue(principal, [], { lifetimeMs: minutes(1) })
    expect((await verifier.verify(token)).principal).toEqual(principal)
  })

  it('are accepted when nothing about them is wrong', async () => {
    expect(await outcome(signed(claims()))).toBe('accepted')
  })

  it('are refused under another algorithm or key, wherever they point (A35)', async () => {
    const foreign = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const jwk = foreign.publicKey.export({ format: 'jwk' })
    const none = `${encode({ alg: 'none', typ: 'JWT', kid })}.${encode(claims())}.`
    const hmacText = `${encode({ alg: 'HS256', typ: 'JWT', kid })}.${encode(claims())}`
    const hmac = `${hmacText}.${createHmac('sha256', publicPem).update(hmacText).digest('base64url')}`
    const refusals = await Promise.all(
      [
        none,
        hmac,
        signed(claims(), {}, foreign.privateKey),
        signed(claims(), { jwk, kid: undefined }, foreign.privateKey),
        signed(claims(), { jku: 'http://127.0.0.1:1/jwks.json', kid: 'theirs' }, foreign.privateKey),
        signed(claims(), { x5c: ['MIIB'], kid: 'theirs' }, foreign.privateKey),
        signed(claims(), { kid: '../../dev/null' }),
        signed(claims(), { kid: "' OR 1" }),
        signed(claims(), { kid: '__proto__' }),
        signed(claims(), { kid: 7 }),
        signed(claims(), { alg: 'PS256' }),
        signed(claims(), { alg: 'rs256' }),
      ].map(outcome),
    )
    expect(new Set(refusals)).toEqual(
      new Set([
        'token is signed with an algorithm that is not accepted',
        'token is invalid',
        'token is signed with a key that is not known',
      ]),
    )
  })

  it.each([
    ['another audience', { aud: 'harbor-upload' }],
    ['a list of audiences that holds ours', { aud: ['harbor-registry', 'other'] }],
    ['a list with ours alone', { aud: ['harbor-registry'] }],
    ['no audience', { aud: undefined }],
    ['another issuer', { iss: 'elsewhere' }],
    ['no principal', { principal: undefined }],
    ['a service as principal', { principal: { kind: 'service', name: 'harbor-core' } }],
    ['a robot without a level', { principal: { kind: 'robot', id: 1 } }],
    ['access that is no list', { access: { type: 'repository' } }],
    ['no access', { access: undefined }],
    ['an access without actions', { access: [{ type: 'repository', name: 'a/b' }] }],
  ])('are refused with %s (A36)', async (_, change) => {
    expect(await outcome(signed(claims(change)))).toMatch(/^token (is invalid|lacks a claim)$/)
  })

  it.each([
    [
      'over for more than a minute',
      () => ({ iat: seconds() - 700, nbf: seconds() - 700, exp: seconds() - 61 }),
      'token is expired',
    ],
    ['over for less than a minute', () => ({ exp: seconds() - 30 }), 'accepted'],
    ['not valid for another two minutes', () => ({ nbf: seconds() + 120 }), 'token is not valid yet'],
    ['without exp', () => ({ exp: undefined }), 'token lacks a claim'],
    ['without iat', () => ({ iat: undefined }), 'token lacks a claim'],
    ['without nbf', () => ({ nbf: undefined }), 'token lacks a claim'],
    ['with iat in 2099', () => ({ iat: 4_070_908_800 }), 'token is from the future'],
    ['with a text for exp', () => ({ exp: '9999999999' }), 'token is invalid'],
    ['with exp beyond all numbers', () => ({ exp: 1e300 }), 'token lacks a claim'],
    ['longer than 8 KiB', () => ({ pad: 'x'.repeat(8192) }), 'token is too long'],
  ])('that are %s: decided by the clock and the shape (A37)', async (_, change, expected) => {
    expect(await outcome(signed(claims(change())))).toBe(expected)
  })

  it.each([
    ['empty', ''],
    ['not a token', 'robot$x'],
    ['two parts', 'a.b'],
    ['four dots, as JWE', 'a.b.c.d.e'],
    ['header is no JSON', `${Buffer.from('{').toString('base64url')}.e30.c2ln`],
    ['header is null', `${Buffer.from('null').toString('base64url')}.e30.c2ln`],
  ])('are refused when %s', async (_, text) => {
    expect(await outcome(text)).toMatch(/^token is /)
  })

  it('are refused with zip, enc, crit or another typ in the header, and with a damaged signature', async () => {
    for (const header of [
      { zip: 'DEF' },
      { enc: 'A256GCM' },
      { crit: ['b64'] },
      { typ: 'at+jwt' },
      { typ: undefined },
    ]) {
      expect(await outcome(signed(claims(), header))).toBe('token is of a kind that is not accepted')
    }
    const good = signed(claims())
    expect(await outcome(`${good.slice(0, -8)}AAAAAAAA`)).toBe('token is invalid')
  })

  it('are verified once, and no longer than they live', async () => {
    const { token } = await issuer.issue(ann, access, { lifetimeMs: minutes(5) })
    const first = await verifier.verify(token)
    expect(await verifier.verify(token)).toBe(first)
    now += minutes(6) + 1000
    expect(await outcome(token)).toBe('token is expired')
  })

  it('grant on the repository and project they were made for, not on one that took the name over (A38)', async () => {
    const project: ProjectNode = { id: 1, name: 'library', public: false, createdAt: new Date(now) }
    const { token } = await issuer.issue(ann, access, { lifetimeMs: minutes(5), projects: [['library', 1]] })
    const verified = await verifier.verify(token)
    expect(tokenAllows(verified, 'library/app', 'push', project)).toBe(true)
    expect(tokenAllows(verified, 'library/app', 'delete', project)).toBe(false)
    expect(tokenAllows(verified, 'library/other', 'pull', project)).toBe(false)
    expect(tokenAllows(verified, 'library/app', 'pull', { ...project, id: 2 })).toBe(false)
    const unbound = await verifier.verify((await issuer.issue(ann, access, { lifetimeMs: minutes(5) })).token)
    expect(tokenAllows(unbound, 'library/app', 'pull', project)).toBe(false)
  })

  it('outlive a rotation of the key by their own lifetime; another process follows by itself', async () => {
    using elsewhere = new SigningKeys(database.db, null, () => now)
    const there = new TokenVerifier(elsewhere, () => now)
    const old = (await issuer.issue(ann, access, { lifetimeMs: minutes(30) })).token
    await there.verify(old)

    const rotated = await rotateSigningKey(database.db, sealer, { tokenLifetimeMs: minutes(30), source: byTest })
    expect(await rotationsTold()).toEqual([rotated.kid])
    keys.forget()
    const fresh = (await issuer.issue(ann, access, { lifetimeMs: minutes(30) })).token
    expect(jwt.decode(fresh, { complete: true })!.header.kid).toBe(rotated.kid)
    expect((await there.verify(fresh)).principal).toEqual(ann)
    expect((await there.verify(old)).principal).toEqual(ann)
    expect((await keys.jwks()).keys).toEqual([
      expect.objectContaining({ kid: rotated.kid, kty: 'RSA', alg: 'RS256', use: 'sig', e: 'AQAB' }),
      expect.objectContaining({ kid }),
    ])
    expect(JSON.stringify(await keys.jwks())).not.toMatch(/"[dpq]"/)

    now += minutes(33)
    expect((await keys.jwks()).keys.map((key) => key.kid)).toEqual([rotated.kid])
    await expect(there.verify(signed(claims()))).rejects.toThrow('token is signed with a key that is not known')
  })

  it('are signed with a new key once the newest is old, made by one of the processes that ask', async () => {
    const { db } = database
    const rotate = (with_: Sealer = sealer) =>
      rotateAgedSigningKey(db, with_, { maxAgeMs: minutes(60), tokenLifetimeMs: minutes(30), source: byTest })
    expect(await rotate()).toBeNull()
    now = Date.now()
    keys.forget()
    await using other = openDatabase({ url: database.url, applicationName: 'other', poolSize: 2 })
    using elsewhere = new SigningKeys(other, sealer, () => now)
    const issuers = [keys, elsewhere].map((each) => new TokenIssuer(each, () => now))
    const verifiers = [keys, elsewhere].map((each) => new TokenVerifier(each, () => now))
    const issue = () => Promise.all(issuers.map((each) => each.issue(ann, access, { lifetimeMs: minutes(30) })))
    const old = (await issue()).map(({ token }) => token)
    const unseen = (await issue()).map(({ token }) => token)
    for (const each of verifiers) for (const token of old) await each.verify(token)

    await db.prisma.$executeRaw`update identity.signing_keys set created_at = created_at - interval '2 hours'`
    const broken: Sealer = {
      ...sealer,
      open: () => {
        throw new Error('authentication failed')
      },
    }
    await expect(rotate(broken)).rejects.toMatchObject({ kind: { name: 'keyUnreadable' } })
    const made = (await Promise.all([rotate(), rotate(), rotate()])).filter((each) => each !== null)
    expect(made).toHaveLength(1)
    expect(await rotationsTold()).toEqual([made[0]!.kid])
    expect(await rotate()).toBeNull()

    now += minutes(1) // longer than what is loaded is kept, wherever the announcement came late
    const fresh = (await issue()).map(({ token }) => token)
    for (const token of fresh) expect(jwt.decode(token, { complete: true })!.header.kid).toBe(made[0]!.kid)
    now += minutes(28)
    for (const each of verifiers)
      for (const token of [...old, ...unseen, ...fresh]) expect((await each.verify(token)).principal).toEqual(ann)
    now += minutes(2)
    for (const each of verifiers) {
      for (const token of [...old, ...unseen]) await expect(each.verify(token)).rejects.toMatchObject({ status: 401 })
      await each.verify(fresh[0]!)
    }
    await db.prisma
      .$executeRaw`update identity.signing_keys set expires_at = now() - interval '1 second' where retired_at is not null`
    await rotate()
    expect((await db.prisma.signingKey.findMany()).map((row) => row.kid)).toEqual([made[0]!.kid])
  })

  it('cannot be signed with a key that was sealed by another installation', async () => {
    using other = new SigningKeys(database.db, {
      seal: sealer.seal,
      open: () => {
        throw new Error('authentication failed')
      },
    })
    await expect(other.signing()).rejects.toMatchObject({ kind: { name: 'keyUnreadable' } })
    using verifyingOnly = new SigningKeys(database.db)
    await expect(verifyingOnly.signing()).rejects.toThrow('verifying only')
  })

  it('cost one read for any number of made-up key ids at once', async () => {
    await keys.jwks()
    now += 1_000
    const asked = await statementsOf(async () => {
      const found = await Promise.all(Array.from({ length: 200 }, (_, i) => keys.verifying(`made-up-${i}`)))
      expect(found.every((key) => key === null)).toBe(true)
    })
    expect(asked).toHaveLength(1)
  })
})
