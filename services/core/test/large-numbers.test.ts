import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { contentOf } from './content.ts'
import { startCore, type TestCore } from './harness.ts'

let core: TestCore

beforeAll(async () => {
  core = await startCore()
  await core.project('shop', await core.user('owner'))
  await contentOf(core).push('shop/cart', 'v1')
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const HUGE = 99_999_999_999
const ARTIFACTS = '/projects/shop/repositories/cart/artifacts'

describe('a number that no id can be', () => {
  it.each<[string, string, object | null]>([
    ['GET', `/labels/${HUGE}`, null],
    ['PUT', `/labels/${HUGE}`, { name: 'a' }],
    ['DELETE', `/labels/${HUGE}`, null],
    ['POST', '/labels', { name: 'a', scope: 'p', project_id: HUGE }],
    ['GET', `/labels?scope=p&project_id=${HUGE}`, null],
    ['POST', `${ARTIFACTS}/v1/labels`, { id: HUGE }],
    ['DELETE', `${ARTIFACTS}/v1/labels/${HUGE}`, null],
    ['PUT', `/projects/shop/immutabletagrules/${HUGE}`, { id: HUGE, disabled: true }],
    ['DELETE', `/projects/shop/immutabletagrules/${HUGE}`, null],
    ['GET', `/projects/${HUGE}`, null],
  ])('%s %s is not found', async (method, path, body) => {
    expect((await core.admin(method, path, body ?? undefined)).status).toBe(404)
  })

  it.each([
    '/labels?scope=g&q=id',
    '/projects?q=project_id',
    '/repositories?q=project_id',
    `${ARTIFACTS}?q=repository_id`,
  ])('%s finds nothing', async (list) => {
    expect(await core.admin('GET', `${list}=${HUGE}`)).toMatchObject({ status: 200, body: [] })
    expect(await core.admin('GET', `${list}=%7B${HUGE}%7D`)).toMatchObject({ status: 200, body: [] })
    expect(await core.admin('GET', `${list}__gte=-${HUGE}`)).toMatchObject({ status: 200 })
  })

  it('is a page without artifacts', async () => {
    const far = await core.admin('GET', `${ARTIFACTS}?page=${2n ** 63n - 1n}&page_size=100`)
    expect([far.status, far.body, far.headers.get('x-total-count')]).toEqual([200, [], '1'])
  })
})

describe('a time that no database holds', () => {
  it.each(['0000-01-01T00:00:00', '-9999-01-01T00:00:00', '%2B99999-01-01T00:00:00'])('%s is refused', async (time) => {
    const asked = await core.admin('GET', `${ARTIFACTS}?q=push_time%3D%5B${time}~%5D`)
    expect([asked.status, asked.text]).toEqual([400, expect.stringMatching(/invalid .*-01-01/)])
  })
})
