import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, until, type Account } from './client.ts'

let haven: HavenInstallation
let client: Client
let ann: Account
beforeAll(async () => {
  haven = await startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.1' } })
  client = new Client(haven.url)
  ann = await client.user('ann')
  await client.project('shop', ann)
}, 180_000)
afterAll(async () => {
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

type Line = {
  username: string
  operation: string
  resource_type: string
  resource: string
  operation_description: string
}
const log = async (q = '', project = 'shop') =>
  (await client.mustApi('GET', `/projects/${project}/auditlog-exts?page_size=100&q=${encodeURIComponent(q)}`, ann))
    .json as Line[]
const kinds = (lines: Line[]) => lines.map((line) => `${line.username} ${line.operation}_${line.resource_type}`)

const settled = (lines: number) => (found: Line[]) => found.length >= lines

describe('the audit log of an installation', () => {
  it('I17: has one line for each change, and for pulls of the same together', async () => {
    const token = await client.token(ann, 'shop/app')
    await client.pushImage('shop/app', '1', token)
    for (let n = 0; n < 3; n++) expect((await client.pull('shop/app', '1', token)).status).toBe(200)
    const ofApp = () => log('resource=shop/app:1')
    const pulls = (lines: Line[]) =>
      lines
        .filter((line) => line.operation === 'pull')
        .map((line) => Number(/\((\d+) times\)/.exec(line.operation_description)?.[1] ?? 1))
        .reduce((sum, times) => sum + times, 0)
    const lines = await until('three pulls are told', ofApp, (found) => pulls(found) >= 3)
    expect(pulls(lines)).toBe(3)
    expect(kinds(lines).filter((kind) => kind === 'ann create_artifact')).toHaveLength(1)
    expect(kinds(await log('resource_type=project'))).toEqual(['ann create_project'])
  })

  it('leaves out what is switched off, from then on', async () => {
    await client.mustApi('PUT', '/configurations', ADMIN, {
      disabled_audit_log_event_types: 'create_member,update_member',
    })
    await client.user('ben')
    const member = await client.member('shop', 'ben', 2)
    await client.mustApi('DELETE', `/projects/shop/members/${member}`)
    const lines = await until('the member is gone', () => log('resource_type=member'), settled(1))
    expect(kinds(lines)).toEqual(['admin delete_member'])
    await client.mustApi('PUT', '/configurations', ADMIN, { disabled_audit_log_event_types: '' })
  })

  it('is sent to the syslog server that is set, and kept until that is back', async () => {
    let receiver = await listen(0)
    const { port } = receiver
    await client.mustApi('PUT', '/configurations', ADMIN, { audit_log_forward_endpoint: `127.0.0.1:${port}` })
    await client.project('sent-1', ann)
    await until(
      'a line comes',
      () => receiver.text(),
      (text) => text.includes('resource:sent-1'),
    )
    await receiver.close()
    await client.project('sent-2', ann)
    await until('it is in the log', () => log('resource=sent-2', 'sent-2'), settled(1))
    receiver = await listen(port)
    const text = await until(
      'the other comes',
      () => receiver.text(),
      (got) => got.includes('resource:sent-2'),
      30_000,
    )
    expect(text).toMatch(/<110>1 \S+ \S+ audit - - - .*operator=ann resourceType=project/)
    await client.mustApi('PUT', '/configurations', ADMIN, { audit_log_forward_endpoint: '' })
    await receiver.close()
  })

  it('is purged by a job, of what is old enough', async () => {
    const before = (await log()).length
    expect(before).toBeGreaterThan(0)
    const made = await client.mustApi('POST', '/system/purgeaudit/schedule', ADMIN, {
      schedule: { type: 'Manual' },
      parameters: { audit_retention_hour: 1, include_event_types: 'create_artifact,other', dry_run: false },
    })
    const run = (made.headers.get('location') ?? '').replace('/api/v2.0', '')
    const status = async () => ((await client.mustApi('GET', run)).json as { job_status: string }).job_status
    await until('the purge is done', status, (now) => now === 'Success' || now === 'Error')
    expect(await status()).toBe('Success')
    expect((await client.mustApi('GET', `${run}/log`)).text).toContain('0 entries purged in all')
    expect((await log()).length).toBe(before)
  })
})

/** A syslog server that keeps what it gets. */
async function listen(port: number) {
  let got = ''
  const sockets = new Set<Socket>()
  const server: Server = createServer((socket) => {
    sockets.add(socket)
    socket.setEncoding('utf8').on('data', (chunk: string) => (got += chunk))
    socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    text: async () => got,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
