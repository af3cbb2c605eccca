import { expect, it, jest } from '@jest/globals'
import { Database } from '@haven/db'
import { startCore } from './harness.ts'

it('starts, for the first time too, without Prisma, which takes as much memory as all that serves pulls', async () => {
  const opened = jest.spyOn(Database.prototype, 'prisma', 'get')
  await using core = await startCore()
  expect(opened).not.toHaveBeenCalled()
  expect((await core.admin('GET', '/projects')).body).toMatchObject([{ name: 'library', owner_name: 'admin' }])
  expect((await core.admin('GET', '/users')).status).toBe(200)
  expect(opened).toHaveBeenCalled()
})
