import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { must, run } from '../clients/tools.ts'
import { Client, digestOf } from './client.ts'
import { collectGarbage, disagreements } from './harness.ts'

const MIB = 1024 * 1024
const lack = lacking('oras', 'crane', 'regctl')
const withGoClients = lack === null ? it.each : it.skip.each
const layer = randomBytes(48 * MIB)

/** What docker, curl and others are told when the answer comes before they have sent everything, and not that a pipe broke. */
describe.each(['single', 'split'] as const)('a large upload that is refused, %s', (shape) => {
  let haven: HavenInstallation
  let client: Client
  let folder: string

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haven-refused-'))
    writeFileSync(join(folder, 'layer'), layer)
    haven = await startHaven({ shape, env: { HAVEN_TRASH: '0s' } })
    client = new Client(haven.url)
    const small = { project_name: 'small', metadata: { public: 'false' }, storage_limit: 8 * MIB }
    await client.api('POST', '/projects', small)
    expect((await client.signIn(['library/app', 'small/app'])).status).toBe(200)
  }, 120_000)
  afterAll(async () => {
    client?.close()
    await haven?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  async function curl(
    location: string,
    authorization: string,
  ): Promise<{ status: number; body: string; said: string }> {
    const url = new URL(location, haven.url).href
    const headers = ['Expect:', `Authorization: ${authorization}`, 'Content-Type: application/octet-stream']
    const args = ['-sS', '-X', 'PATCH', '-T', join(folder, 'layer'), '-w', '\n%{http_code}']
    const child = spawn('curl', [...args, ...headers.flatMap((header) => ['-H', header]), url])
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].on('data', (chunk: Buffer) => (output[name] += chunk.toString()))
    }
    await new Promise((resolve, reject) => child.once('close', resolve).once('error', reject))
    const [body = '', status = ''] = output.stdout.split('\n')
    return { status: Number(status), body, said: output.stderr }
  }

  it('401: without a valid token', async () => {
    const { location } = await client.startUpload('library/app')
    for (let turn = 0; turn < 5; turn += 1) {
      const refused = await client.send('PATCH', location, { body: layer, headers: { authorization: 'Bearer x.y.z' } })
      expect([refused.status, refused.body.toString()]).toEqual([401, expect.stringContaining('UNAUTHORIZED')])
    }
    expect(await curl(location, 'Bearer x.y.z')).toEqual({
      status: 401,
      body: expect.stringContaining('UNAUTHORIZED'),
      said: '',
    })
  })

  it('404: to an upload that is not there', async () => {
    const location = `/v2/library/app/blobs/uploads/${'0'.repeat(8)}-0000-4000-8000-${'0'.repeat(12)}`
    const refused = await client.send('PATCH', location, { body: layer })
    expect([refused.status, refused.body.toString()]).toEqual([404, expect.stringContaining('BLOB_UPLOAD_UNKNOWN')])
    expect(await curl(location, client.authorization)).toMatchObject({ status: 404, said: '' })
  })

  it('413: a manifest over the limit', async () => {
    const refused = await client.putManifest('library/app', 'big', layer)
    expect(refused.status).toBe(413)
  })

  it('over the quota: wherever in the upload that is noticed, the reason arrives, and nothing stays', async () => {
    const refused = await client.pushBlob('small/app', layer)
    expect(refused.status).toBeGreaterThanOrEqual(400)
    expect(refused.status).toBeLessThan(500)
    expect(refused.body.toString()).toMatch(/quota/i)
    expect((await client.headBlob('small/app', digestOf(layer))).status).toBe(404)
  })

  withGoClients([
    // Says how much comes, and is refused before it has sent anything.
    [
      'oras',
      /quota/i,
      (to: string) => ['blob', 'push', '--plain-http', `${to}@${digestOf(layer)}`, join(folder, 'layer')],
    ],
    // Tells its user the status of the answer and no more.
    ['regctl', /http 403/, (to: string) => ['--host', `reg=${haven.host},tls=disabled`, 'blob', 'put', to]],
    // Says nothing of the length, and is refused where the quota ends.
    [
      'crane',
      /quota/i,
      (to: string) => ['append', '--insecure', '--oci-empty-base', '-f', join(folder, 'tar'), '-t', to],
    ],
  ] as const)(titled('over the quota: %s learns it from the answer', lack), async (name, says, args) => {
    const auth = Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ auths: { [haven.host]: { auth } } }))
    await must('tar', ['-cf', join(folder, 'tar'), '-C', folder, 'layer'])
    for (let turn = 0; turn < 3; turn += 1) {
      const pushed = await run(findTool(name)!, args(`${haven.host}/small/app`), {
        env: { DOCKER_CONFIG: folder, HOME: folder },
        ...(name === 'regctl' && { input: layer }),
      })
      expect(pushed.output).toMatch(says)
      expect(pushed.code).not.toBe(0)
    }
  })

  it('leaves nothing in the store beside or against the record', async () => {
    await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
    expect(await collectGarbage(client)).toBe('Success')
    expect(await disagreements(haven)).toEqual([])
  })
})
