import { expect, it, jest } from '@jest/globals'
import { Database } from '@haven/db'
import { ensureSigningKey, SigningKeys } from '@haven/identity'
import { testDatabase } from '@haven/testkit'
import { clockSkewSeconds, proveEncryptionKey, sealerOf } from './installation.ts'

it('is prepared, and its keys are read, without Prisma', async () => {
  const opened = jest.spyOn(Database.prototype, 'prisma', 'get')
  await using database = await testDatabase()
  const { db } = database
  const sealer = sealerOf(Buffer.alloc(32, 7).toString('base64'))
  expect(Math.abs(await clockSkewSeconds(db))).toBeLessThan(60)
  for (let start = 0; start < 2; start++) {
    await proveEncryptionKey(db, sealer)
    await ensureSigningKey(db, sealer)
  }
  using keys = new SigningKeys(db, sealer)
  const { kid } = await keys.signing()
  expect((await keys.jwks()).keys.map((key) => key.kid)).toEqual([kid])
  expect(opened).not.toHaveBeenCalled()
})
