import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startCore, type TestCore } from './harness.ts'

describe('with GDPR_DELETE_USER and GDPR_AUDIT_LOGS', () => {
  let core: TestCore
  beforeAll(async () => {
    core = await startCore({ GDPR_DELETE_USER: 'true', GDPR_AUDIT_LOGS: 'true' })
  })
  afterAll(async () => {
    await core[Symbol.asyncDispose]()
  })

  it('nothing tells who a deleted user was, and the audit log is told to forget it', async () => {
    const { id } = await core.user('forgotten')
    expect((await core.admin('DELETE', `/users/${id}`)).status).toBe(200)
    const row = await core.db.prisma.user.findUnique({ where: { id } })
    const pseudonym = expect.stringMatching(new RegExp(String.raw`^[0-9a-f]{8}#${id}$`))
    expect(row).toMatchObject({ username: pseudonym, email: pseudonym, realname: pseudonym, comment: '' })
    expect(JSON.stringify(row)).not.toContain('forgotten')
    const [told] = await core.db.prisma.outboxEvent.findMany({ where: { type: { contains: 'UserDeleted' } } })
    expect(JSON.stringify(told?.payload)).not.toContain('forgotten')
    const [task] = await core.db.prisma.task.findMany({
      where: { execution: { vendorType: 'AUDIT_LOGS_GDPR_COMPLIANT' } },
    })
    expect(JSON.stringify(task?.parameters)).toContain(row!.username)
    expect((await core.admin('GET', `/users/${id}`)).status).toBe(404)
    expect((await core.user('forgotten')).id).not.toBe(id)
  })
})
