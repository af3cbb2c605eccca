import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, idIn, send, until, type Account, type Image } from './client.ts'

let haven: HavenInstallation
let client: Client

beforeAll(async () => {
  haven = await startHaven({ env: { REGISTRY_BLOB_GRACE: '0s', HAVEN_TRASH: '0s' } })
  client = new Client(haven.url)
}, 60_000)
afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

/** What a page loads: the targets of its scripts, styles and images. */
const loadedBy = (html: string) =>
  [...html.matchAll(/<(?:script|link|img)\b[^>]*?(?:src|href)="([^"]+)"/g)].map(([, target]) => target!)
const isOutside = (target: string) => /^(?:[a-z][a-z0-9+.-]*:)?\/\//i.test(target)

describe('pages', () => {
  it('show the first page with its assets, and nothing from elsewhere', async () => {
    const page = await send(`${haven.url}/`, 'GET')
    expect([page.status, page.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/html')])
    expect(page.text).toContain('/devcenter-api-2.0')
    const assets = loadedBy(page.text).filter((target) => !target.startsWith('data:'))
    expect(assets.length).toBeGreaterThan(1)
    expect(assets.filter(isOutside)).toEqual([])
    for (const asset of assets) {
      const { status, headers } = await send(new URL(asset, `${haven.url}/`).href, 'GET')
      expect([asset, status]).toEqual([asset, 200])
      expect(headers.get('content-type')).toMatch(asset.endsWith('.css') ? /^text\/css/ : /javascript|image/)
    }
  })

  it('let the API be explored without a reference to anywhere else', async () => {
    const moved = await send(`${haven.url}/devcenter-api-2.0`, 'GET')
    const at =
      moved.status === 200 ? `${haven.url}/devcenter-api-2.0` : new URL(moved.headers.get('location')!, haven.url).href
    const page = await send(at, 'GET')
    expect(page.status).toBe(200)
    const assets = loadedBy(page.text)
    expect(assets.filter(isOutside)).toEqual([])
    const loaded = await Promise.all(assets.map((asset) => send(new URL(asset, at).href, 'GET')))
    expect(loaded.map(({ status }) => status)).toEqual(assets.map(() => 200))
    const scripts = loaded
      .filter(({ headers }) => headers.get('content-type')?.includes('javascript'))
      .map(({ text }) => text)
    expect(scripts.some((text) => text.includes('"/swagger.json"'))).toBe(true)

    const contract = await send(`${haven.url}/swagger.json`, 'GET')
    const references = [...contract.text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, target]) => target!)
    expect(references.length).toBeGreaterThan(100)
    expect(references.filter((target) => !target.startsWith('#/'))).toEqual([])
    const { servers, paths } = contract.json as { servers: { url: string }[]; paths: object }
    expect(servers).toEqual([{ url: '/api/v2.0' }])
    expect(Object.keys(paths).length).toBeGreaterThan(100)
  })
})

describe('garbage collection', () => {
  let kept: Image
  let gone: Image

  const start = async (parameters: object = {}) =>
    idIn(await client.mustApi('POST', '/system/gc/schedule', ADMIN, { schedule: { type: 'Manual' }, parameters }))
  type Run = { job_status: string; job_parameters: string }
  const finished = (id: number) =>
    until(
      `run ${id}`,
      async () => (await client.mustApi('GET', `/system/gc/${id}`)).json as Run,
      ({ job_status: status }) => ['Success', 'Error', 'Stopped'].includes(status),
      20_000,
    )
  const explain = (digest: string) => send(`${haven.url}/api/haven/v1/gc/explain/${digest}`, 'GET', { as: ADMIN })
  const bytesOnDisk = (folder = join(haven.home, 'blobs')): number =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((name) => statSync(join(folder, name)))
      .reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0)

  it('frees what was deleted and leaves the rest', async () => {
    const token = await client.token(ADMIN, 'library/gc')
    kept = await client.pushImage('library/gc', 'kept', token, 50_000)
    gone = await client.pushImage('library/gc', 'gone', token, 300_000)
    expect((await explain(gone.layer)).json).toMatchObject({
      exists: true,
      keptBy: [{ kind: 'manifest', repository: 'library/gc', reference: gone.digest }],
    })
    const before = bytesOnDisk()
    expect((await client.v2('DELETE', `library/gc/manifests/${gone.digest}`, token)).status).toBe(202)

    const dry = await finished(await start({ dry_run: true }))
    expect(JSON.parse(dry.job_parameters)).toMatchObject({ dry_run: true, freed_space: expect.any(Number) as unknown })
    expect((await explain(gone.layer)).json).toMatchObject({ exists: true })

    const id = await start({ workers: 2 })
    const run = await finished(id)
    expect(run.job_status).toBe('Success')
    const { freed_space: freed, purged_blobs: blobs } = JSON.parse(run.job_parameters) as Record<string, number>
    expect(freed).toBeGreaterThanOrEqual(300_000)
    expect(freed).toBeLessThan(350_000)
    expect(blobs).toBe(1) // the config is the other image's too
    const log = await client.mustApi('GET', `/system/gc/${id}/log`)
    expect(log.text).toContain(gone.layer)
    await until(
      'the bytes are gone',
      async () => before - bytesOnDisk(),
      (erased) => erased >= 300_000,
    )

    expect((await client.pull('library/gc', 'gone', token)).status).toBe(404)
    expect((await client.pull('library/gc', 'kept', token)).status).toBe(200)
    expect((await client.v2('GET', `library/gc/blobs/${kept.layer}`, token)).status).toBe(200)
    expect((await explain(gone.layer)).json).toMatchObject({
      exists: false,
      keptBy: [],
      removals: expect.arrayContaining([expect.objectContaining({ kind: 'blob', execution: id })]) as unknown,
    })
  })

  it('stops when it is told to', async () => {
    // It waits for the lock, and is told meanwhile: the lock is held until it has stopped.
    await using session = await haven.session()
    await session.query('begin')
    await session.query('lock table artifacts.manifests in access exclusive mode')
    const id = await start()
    await until(
      'the run has begun',
      async () => (await client.mustApi('GET', `/system/gc/${id}`)).json as Run,
      (run) => run.job_status === 'Running',
    )
    await client.mustApi('PUT', `/system/gc/${id}`)
    expect((await finished(id)).job_status).toBe('Stopped')
    await session.query('rollback')
    expect((await finished(await start())).job_status).toBe('Success')
  })

  it('keeps, shows and drops a schedule', async () => {
    const put = (type: string, cron?: string) => ({
      schedule: { type, ...(cron && { cron }) },
      parameters: { delete_untagged: true },
    })
    expect((await client.mustApi('GET', '/system/gc/schedule')).text).toBe('')
    await client.mustApi('POST', '/system/gc/schedule', ADMIN, put('Custom', '0 0 3 * * 0'))
    expect((await client.mustApi('GET', '/system/gc/schedule')).json).toMatchObject({
      schedule: {
        type: 'Custom',
        cron: '0 0 3 * * 0',
        next_scheduled_time: expect.stringMatching(/T03:00:00/) as unknown,
      },
      job_parameters: expect.stringContaining('"delete_untagged":true') as unknown,
    })
    await client.mustApi('PUT', '/system/gc/schedule', ADMIN, put('None'))
    expect((await client.mustApi('GET', '/system/gc/schedule')).text).toBe('')
  })
})

describe('a private project', () => {
  let owner: Account & { id: number }
  let stranger: Account
  let image: Image

  beforeAll(async () => {
    owner = await client.user('owner')
    stranger = await client.user('stranger')
    await client.project('mine', owner)
  })

  it('is its maker’s, who may push to it', async () => {
    expect((await client.mustApi('GET', '/projects/mine', owner)).json).toMatchObject({ current_user_role_id: 1 })
    expect((await client.mustApi('GET', '/projects/mine/members', owner)).json).toMatchObject([
      { entity_name: 'owner', role_id: 1, role_name: 'projectAdmin' },
    ])
    image = await client.pushImage('mine/app', '1', await client.token(owner, 'mine/app'))
    expect((await client.pull('mine/app', '1', await client.token(owner, 'mine/app'))).status).toBe(200)
  })

  it('refuses strangers at both doors, and tells them nothing', async () => {
    for (const [who, status] of [
      [stranger, 403],
      [null, 401],
    ] as const) {
      for (const path of ['', '/members', '/summary']) {
        expect([path, (await client.api('GET', `/projects/mine${path}`, who)).status]).toEqual([path, status])
      }
      const listed = (await client.mustApi('GET', '/projects?page_size=100', who)).text
      expect(listed).not.toContain('"mine"')
      const token = await client.token(who, 'mine/app')
      for (const reference of ['1', image.digest]) {
        expect((await client.pull('mine/app', reference, token)).status).toBe(401)
      }
      expect((await client.v2('GET', `mine/app/blobs/${image.layer}`, token)).status).toBe(401)
      expect((await client.pushBlob('mine/app', token, Buffer.from('x'))).status).toBe(401)
      expect((await send(`${haven.url}/api/haven/v1/gc/explain/${image.layer}`, 'GET', { as: who })).status).toBe(
        who ? 404 : 401,
      )
    }
  })
})

/** Threats.md R10: what was taken away is away within 5 s, for a token in hand too. */
describe('a token in hand', () => {
  const WITHIN_MS = 5_000
  const pullsWith = (repository: string, token: string) => async () =>
    (await client.pull(repository, '1', token)).status
  const refused = (status: number) => status === 401 || status === 403

  beforeAll(async () => {
    await client.project('team')
    await client.pushImage('team/app', '1', await client.token(ADMIN, 'team/app'))
  })

  it.each([
    [
      'its member was removed',
      async (_id: number, member: number) => void (await client.mustApi('DELETE', `/projects/team/members/${member}`)),
    ],
    ['its user was deleted', async (id: number) => void (await client.mustApi('DELETE', `/users/${id}`))],
    [
      'its user was disabled',
      async (id: number) =>
        void (await haven.query('update identity.users set disabled_at = now() where id = $1', [id])),
    ],
  ])('is refused within 5 s after %s', async (what, takeAway) => {
    const user = await client.user(what.replaceAll(' ', '-'))
    const member = await client.member('team', user.name, 2)
    const token = await client.token(user, 'team/app')
    expect(await pullsWith('team/app', token)()).toBe(200)
    await takeAway(user.id, member)
    await until('refused', pullsWith('team/app', token), refused, WITHIN_MS)
    expect(refused((await client.pushBlob('team/app', token, Buffer.from(what))).status)).toBe(true)
  })

  it('is refused in a project of the same name that was made later (A38)', async () => {
    const before = await client.user('before')
    const id = await client.project('reborn', before)
    const token = await client.token(before, 'reborn/app')
    await client.mustApi('DELETE', `/projects/${id}`, before)
    await client.project('reborn')
    expect(refused((await client.pushBlob('reborn/app', token, Buffer.from('x'))).status)).toBe(true)
    await client.pushImage('reborn/app', '1', await client.token(ADMIN, 'reborn/app'))
    expect(refused(await pullsWith('reborn/app', token)())).toBe(true)
    expect((await client.api('GET', '/projects/reborn', before)).status).toBe(403)
  })
})

describe('a session', () => {
  it('logs in, changes something with its token only, and ends', async () => {
    const cookies = new Map<string, string>()
    let csrf = ''
    const browse = async (
      method: string,
      path: string,
      { body, withToken = true }: { body?: object | string; withToken?: boolean } = {},
    ) => {
      const reply = await send(haven.url + path, method, {
        headers: {
          Cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; '),
          ...(withToken && { 'X-Harbor-CSRF-Token': csrf }),
          ...(typeof body === 'string' && { 'Content-Type': 'application/x-www-form-urlencoded' }),
        },
        ...(body !== undefined && { body }),
      })
      for (const cookie of reply.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie)!
        if (value === '') cookies.delete(name!)
        else cookies.set(name!, value!)
      }
      csrf = reply.headers.get('x-harbor-csrf-token') ?? csrf
      return reply
    }
    await browse('GET', '/c/log_out')
    const form = (password: string) => new URLSearchParams({ principal: ADMIN.name, password }).toString()
    expect((await browse('POST', '/c/login', { body: form('wrong') })).status).toBe(401)
    expect((await browse('GET', '/api/v2.0/users/current')).status).toBe(401)
    const loggedIn = await browse('POST', '/c/login', { body: form(ADMIN.password) })
    expect(loggedIn.status).toBe(200)
    expect(loggedIn.headers.getSetCookie().find((cookie) => cookie.startsWith('sid='))).toMatch(/HttpOnly/i)
    expect((await browse('GET', '/api/v2.0/users/current')).json).toMatchObject({ username: 'admin' })

    const body = { project_name: 'by-session' }
    expect((await browse('POST', '/api/v2.0/projects', { body, withToken: false })).status).toBe(403)
    expect((await client.api('GET', '/projects/by-session')).status).toBe(404)
    expect((await browse('POST', '/api/v2.0/projects', { body })).status).toBe(201)
    expect((await client.api('GET', '/projects/by-session')).status).toBe(200)

    const old = new Map(cookies)
    expect((await browse('GET', '/c/log_out')).status).toBe(200)
    for (const [name, value] of old) cookies.set(name, value)
    expect((await browse('GET', '/api/v2.0/users/current')).status).toBe(401)
  })
})
