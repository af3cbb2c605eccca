import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { TokenIssuer, TokenVerifier, ensureSigningKey, SigningKeys } from '@haven/identity'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { proveEncryptionKey, sealerOf } from '../installation.ts'
import { readLauncherConfig } from '../settings.ts'
import { rotateKeys } from './rotate-keys.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())

describe('haven rotate-keys', () => {
  const newKey = () => randomBytes(32).toString('base64')
  const HAVEN_ENCRYPTION_KEY = newKey()
  const rotate = async (env: Record<string, string>) => {
    const lines: string[] = []
    await rotateKeys(readLauncherConfig({ HAVEN_HOME: '/nowhere', ...env }), env, (line) => lines.push(line))
    return lines
  }

  it('lets a new key sign at once, and what the old one signed stays valid', async () => {
    const sealer = sealerOf(HAVEN_ENCRYPTION_KEY)
    await proveEncryptionKey(database.db, sealer)
    await ensureSigningKey(database.db, sealer)
    using keys = new SigningKeys(database.db, sealer)
    const principal = { kind: 'user' as const, id: 1, name: 'ann' }
    const { token } = await new TokenIssuer(keys).issue(principal, [], { lifetimeMs: 60_000 })

    const [line] = await rotate({ DATABASE_URL: database.url, HAVEN_ENCRYPTION_KEY })
    keys.forget()
    expect(line).toBe(`key ${(await keys.signing()).kid} signs tokens now`)
    expect((await new TokenVerifier(keys).verify(token)).principal).toEqual(principal)
  })

  it('changes nothing without the database or the right encryption key', async () => {
    const kids = async () => (await database.db.prisma.signingKey.findMany()).map(({ kid }) => kid)
    const before = await kids()
    const refused = (env: Record<string, string>) =>
      rotate(env).catch((error: { kind: { name: string } }) => error.kind.name)
    expect(await refused({ HAVEN_ENCRYPTION_KEY })).toBe('databaseUnreachable')
    expect(await refused({ DATABASE_URL: database.url })).toBe('keyUnreadable')
    expect(await refused({ DATABASE_URL: database.url, HAVEN_ENCRYPTION_KEY: newKey() })).toBe('keyUnreadable')
    expect(await kids()).toEqual(before)
  })
})
