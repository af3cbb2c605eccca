import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client } from './client.ts'

let haven: HavenInstallation
let client: Client

beforeAll(async () => {
  haven = await startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.1' } })
  client = new Client(haven.url)
}, 180_000)
afterAll(async () => {
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

describe('an installation that knows itself as another registry', () => {
  const endpoint = (name: string, secret: string) => ({
    name,
    type: 'harbor',
    url: haven.url,
    credential: { type: 'basic', access_key: ADMIN.name, access_secret: secret },
  })

  it('signs in there by a token, and not with a wrong password', async () => {
    const made = await client.mustApi('POST', '/registries', ADMIN, endpoint('myself', ADMIN.password))
    const path = made.headers.get('location')!.replace('/api/v2.0', '')
    expect((await client.mustApi('GET', path)).json).toMatchObject({ status: 'healthy', url: haven.url })
    const id = Number(path.split('/').at(-1))
    expect((await client.api('POST', '/registries/ping', ADMIN, { id })).status).toBe(200)
    const wrong = await client.api('POST', '/registries', ADMIN, endpoint('another', 'wrong'))
    expect([wrong.status, wrong.text]).toEqual([400, expect.stringContaining('the registry is unhealthy')])
    expect((await client.api('DELETE', path)).status).toBe(200)
  })

  it('A91: does not reach what it stands on, although the network is allowed', async () => {
    for (const url of Object.values(haven.servers())) {
      const sent = { type: 'docker-registry', url: `http://127.0.0.1:${new URL(url).port}` }
      const refused = await client.api('POST', '/registries/ping', ADMIN, sent)
      expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('may not be reached')])
    }
  })
})

describe('what was pushed', () => {
  it('is found, and counted once', async () => {
    await client.project('found')
    const token = await client.token(ADMIN, 'found/deep/app')
    const before = (await client.mustApi('GET', '/statistics')).json as { total_storage_consumption: number }
    await client.pushImage('found/deep/app', '1', token, 5000)
    const [repository] = ((await client.mustApi('GET', '/search?q=DEEP')).json as { repository: object[] }).repository
    expect(repository).toMatchObject({ repository_name: 'found/deep/app', artifact_count: 1 })
    const after = (await client.mustApi('GET', '/statistics')).json
    const { total_storage_consumption: bytes, ...counts } = after as { total_storage_consumption: number }
    expect(counts).toMatchObject({
      total_project_count: 2,
      private_project_count: 1,
      private_repo_count: 1,
      total_repo_count: 1,
    })
    expect(bytes).toBeGreaterThanOrEqual(before.total_storage_consumption + 5000)
  })
})
