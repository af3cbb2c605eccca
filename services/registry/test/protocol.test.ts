import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { MemoryStorage } from '@haven/storage'
import {
  imageManifest,
  indexOf,
  ociIndex,
  ociManifest,
  sha256,
  sha512,
  startRegistry,
  type Ask,
  type Person,
  type TestRegistry,
} from './harness.ts'

let registry: TestRegistry
const ask = (method: string, path: string, given?: Ask, copy?: number) => registry.ask(method, path, given, copy)

beforeAll(async () => {
  registry = await startRegistry({ copies: 2 })
})
afterAll(() => registry[Symbol.asyncDispose]())

const openUpload = async (repository: string, query = '') => {
  const opened = await ask('POST', `/v2/${repository}/blobs/uploads/${query}`)
  expect(opened.status).toBe(202)
  return opened.headers.get('location')!
}
const code = (answer: { json: () => any }) => answer.json().errors[0].code

describe('the read-only mode', () => {
  it('refuses pushes, uploads and deletions before it asks who calls, and lets people pull', async () => {
    await using frozen = await startRegistry()
    const image = await frozen.pushImage('acme/app', '1')
    const opened = await frozen.ask('POST', '/v2/acme/app/blobs/uploads/')
    const upload = new URL(opened.headers.get('location')!, frozen.urls[0]).pathname
    await frozen.db.prisma.setting.create({ data: { key: 'read_only', value: true } })
    frozen.settings.forget()
    const changes = [
      ['POST', '/v2/acme/app/blobs/uploads/'],
      ['POST', `/v2/acme/other/blobs/uploads/?mount=${image.layerDigest}&from=acme/app`],
      ['PATCH', upload],
      ['PUT', `${upload}?digest=${image.layerDigest}`],
      ['DELETE', upload],
      ['PUT', '/v2/acme/app/manifests/2'],
      ['DELETE', `/v2/acme/app/manifests/${image.digest}`],
      ['DELETE', `/v2/acme/app/blobs/${image.layerDigest}`],
    ] as const
    for (const [method, path] of changes) {
      for (const as of ['nobody', 'admin'] as const) {
        const refused = await frozen.ask(method, path, { as })
        expect({ method, path, status: refused.status, body: refused.json() }).toMatchObject({
          method,
          path,
          status: 403,
          body: {
            errors: [{ code: 'DENIED', message: 'The system is in read only mode. Any modification is prohibited.' }],
          },
        })
        expect(refused.headers.get('www-authenticate')).toBeNull()
      }
    }
    expect((await frozen.ask('GET', '/v2/acme/app/manifests/1')).status).toBe(200)
    expect((await frozen.ask('HEAD', `/v2/acme/app/blobs/${image.layerDigest}`)).status).toBe(200)
    expect((await frozen.ask('GET', upload)).status).toBe(204)
    expect((await frozen.ask('GET', '/v2/', { as: 'nobody' })).status).toBe(401)
  })
})

describe('the door of /v2', () => {
  it('sends who has no credentials to the token service of the host that was asked', async () => {
    const refused = await ask('GET', '/v2/', { as: 'nobody' })
    expect(refused.status).toBe(401)
    expect(refused.headers.get('www-authenticate')).toBe(
      `Bearer realm="${registry.urls[0]}/service/token",service="harbor-registry"`,
    )
    expect(refused.headers.get('docker-distribution-api-version')).toBe('registry/2.0')
    expect(code(refused)).toBe('UNAUTHORIZED')
  })

  it.each([{ basic: true }, {}])('lets who is signed in pass: %j', async (how) => {
    for (const path of ['/v2/', '/v2']) {
      const answer = await ask('GET', path, { as: 'gus', ...how })
      expect({ status: answer.status, body: answer.body.toString() }).toEqual({ status: 200, body: '{}' })
    }
  })

  it('names the scope that a request needs, and says when the token has it not', async () => {
    const path = `/v2/acme/app/manifests/latest`
    const challenge = async (method: string, given: Ask) =>
      (await ask(method, path, given)).headers.get('www-authenticate')!.replace(/^.*service=/, '')
    expect(await challenge('HEAD', { as: 'nobody' })).toBe('"harbor-registry",scope="repository:acme/app:pull"')
    expect(await challenge('PUT', { as: 'nobody' })).toBe('"harbor-registry",scope="repository:acme/app:pull,push"')
    expect(await challenge('DELETE', { as: 'nobody' })).toBe('"harbor-registry",scope="repository:acme/app:delete"')
    expect(await challenge('PUT', { as: 'gus' })).toBe(
      '"harbor-registry",scope="repository:acme/app:pull,push",error="insufficient_scope"',
    )
  })

  it('answers a wrong password and a broken token with 401 and a challenge', async () => {
    for (const authorization of ['Basic bWlhOndyb25n', 'Basic %%%', 'Bearer x.y.z', 'Digest a', 'Bearer']) {
      const refused = await ask('GET', '/v2/', { as: 'nobody', headers: { authorization } })
      expect({ authorization, status: refused.status }).toEqual({ authorization, status: 401 })
      expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer realm="/)
    }
  })

  it('says which methods a path has, and that a path is none of ours', async () => {
    const refused = await ask('POST', '/v2/acme/app/manifests/latest')
    expect(refused.status).toBe(405)
    expect(refused.headers.get('allow')).toBe('GET, HEAD, PUT, DELETE')
    expect((await ask('GET', '/v2/acme/app/nothing/here')).status).toBe(404)
    expect(code(await ask('GET', '/v2/library/manifests/latest', { scope: 'repository:library:pull' }))).toBe(
      'NAME_INVALID',
    )
  })
})

describe('uploads', () => {
  it('takes a blob in one POST, in a POST and a PUT, and in chunks', async () => {
    const bytes = randomBytes(100_000)
    const digest = sha256(bytes)
    const single = await ask('POST', `/v2/acme/single/blobs/uploads/?digest=${digest}`, { body: bytes })
    expect(single.status).toBe(201)
    expect(single.headers.get('location')).toBe(`/v2/acme/single/blobs/${digest}`)
    expect(single.headers.get('docker-content-digest')).toBe(digest)

    const put = await ask('PUT', `${await openUpload('acme/put')}?digest=${digest}`, { body: bytes })
    expect(put.status).toBe(201)

    const location = await openUpload('acme/chunks')
    const first = await ask('PATCH', location, {
      body: bytes.subarray(0, 60_000),
      headers: { 'content-range': '0-59999', 'content-type': 'application/octet-stream' },
    })
    expect({ status: first.status, range: first.headers.get('range') }).toEqual({ status: 202, range: '0-59999' })
    const status = await ask('GET', first.headers.get('location')!)
    expect({ status: status.status, range: status.headers.get('range') }).toEqual({ status: 204, range: '0-59999' })
    const head = await ask('HEAD', first.headers.get('location')!)
    expect({ status: head.status, range: head.headers.get('range') }).toEqual({ status: 204, range: '0-59999' })
    const last = await ask('PUT', `${first.headers.get('location')}?digest=${digest}`, {
      body: bytes.subarray(60_000),
      headers: { 'content-range': '60000-99999' },
    })
    expect(last.status).toBe(201)
    for (const repository of ['single', 'put', 'chunks']) {
      expect((await ask('GET', `/v2/acme/${repository}/blobs/${digest}`)).body.equals(bytes)).toBe(true)
    }
  })

  it('takes a stream of unknown length, as docker sends it', async () => {
    const bytes = randomBytes(300_000)
    const location = await openUpload('acme/stream')
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += 70_000) controller.enqueue(bytes.subarray(at, at + 70_000))
        controller.close()
      },
    })
    expect((await ask('PATCH', location, { body })).status).toBe(202)
    expect((await ask('PUT', `${location}?digest=${sha256(bytes)}`)).status).toBe(201)
  })

  it('takes an empty blob and sums with sha512', async () => {
    const none = new Uint8Array()
    expect((await ask('PUT', `${await openUpload('acme/empty')}?digest=${sha256(none)}`)).status).toBe(201)
    const empty = await ask('GET', `/v2/acme/empty/blobs/${sha256(none)}`)
    expect({ status: empty.status, length: empty.headers.get('content-length') }).toEqual({ status: 200, length: '0' })

    const bytes = randomBytes(10_000)
    for (const query of ['', '?digest-algorithm=sha512']) {
      const location = await openUpload('acme/long', query)
      await ask('PATCH', location, { body: bytes })
      const finished = await ask('PUT', `${location}?digest=${sha512(bytes)}`)
      expect({ query, status: finished.status }).toEqual({ query, status: 201 })
      expect(finished.headers.get('docker-content-digest')).toBe(sha512(bytes))
    }
    expect((await ask('GET', `/v2/acme/long/blobs/${sha512(bytes)}`)).body.equals(bytes)).toBe(true)
    expect((await ask('POST', `/v2/acme/long/blobs/uploads/?digest-algorithm=md5`)).status).toBe(400)
  })

  it('answers a chunk out of order with where the upload is, and leaves it so (F04)', async () => {
    const bytes = randomBytes(3000)
    const location = await openUpload('acme/order')
    await ask('PATCH', location, { body: bytes.subarray(0, 1000), headers: { 'content-range': '0-999' } })
    for (const range of ['0-999', '500-1499', '2000-2999']) {
      const refused = await ask('PATCH', location, {
        body: bytes.subarray(0, 1000),
        headers: { 'content-range': range },
      })
      expect({ range, status: refused.status, at: refused.headers.get('range') }).toEqual({
        range,
        status: 416,
        at: '0-999',
      })
      expect(refused.headers.get('location')).toBe(location)
    }
    const skipped = await ask('PUT', `${location}?digest=${sha256(bytes)}`, {
      body: bytes.subarray(2000),
      headers: { 'content-range': '2000-2999' },
    })
    expect(skipped.status).toBe(416)
    expect(
      (await ask('PATCH', location, { body: bytes.subarray(1000), headers: { 'content-range': '1000-2999' } })).status,
    ).toBe(202)
    expect((await ask('PUT', `${location}?digest=${sha256(bytes)}`)).status).toBe(201)
  })

  it.each(['bytes', '5-2', '0-', '-1', '0-99999999999999999999', '1-2-3', 'bytes 0-1/2'])(
    'refuses the Content-Range %j for ten bytes (A84)',
    async (range) => {
      const location = await openUpload('acme/ranges')
      const refused = await ask('PATCH', location, { body: randomBytes(10), headers: { 'content-range': range } })
      expect(refused.status).toBe(400)
      expect((await ask('GET', location)).headers.get('range')).toBe('0-0')
    },
  )

  it('goes on in another replica, chunk by chunk, and reads again what it did not sum', async () => {
    const bytes = randomBytes(500_000)
    const location = await openUpload('acme/hopping')
    for (let chunk = 0; chunk < 5; chunk++) {
      const body = bytes.subarray(chunk * 100_000, (chunk + 1) * 100_000)
      expect((await ask('PATCH', location, { body }, chunk % 2)).status).toBe(202)
    }
    expect((await ask('GET', location, {}, 1)).headers.get('range')).toBe('0-499999')
    expect((await ask('PUT', `${location}?digest=${sha256(bytes)}`, {}, 1)).status).toBe(201)
    expect((await ask('GET', `/v2/acme/hopping/blobs/${sha256(bytes)}`)).body.equals(bytes)).toBe(true)

    const wrong = await openUpload('acme/hopping')
    await ask('PATCH', wrong, { body: bytes.subarray(0, 10) }, 0)
    await ask('PATCH', wrong, { body: bytes.subarray(10) }, 1)
    expect(code(await ask('PUT', `${wrong}?digest=${sha256('something else')}`, {}, 0))).toBe('DIGEST_INVALID')
    expect((await ask('GET', wrong)).status).toBe(404)
  })

  it('ends the upload whose bytes are not the digest, and counts nothing (A82)', async () => {
    const before = await registry.db.prisma.quotaDelta.count()
    const location = await openUpload('acme/wrong')
    await ask('PATCH', location, { body: 'these bytes' })
    for (const digest of ['md5:d41d8cd98f00b204e9800998ecf8427e', 'sha256:abc', `sha256:${'A'.repeat(64)}`, '']) {
      expect(code(await ask('PUT', `${location}?digest=${digest}`))).toBe('DIGEST_INVALID')
    }
    expect(code(await ask('PUT', location))).toBe('DIGEST_INVALID')
    const twice = `digest=${sha256('these bytes')}&digest=${sha256('others')}`
    expect(code(await ask('PUT', `${location}?${twice}`))).toBe('DIGEST_INVALID')
    const wrong = sha256('other bytes')
    expect(code(await ask('PUT', `${location}?digest=${wrong}`))).toBe('DIGEST_INVALID')
    expect(code(await ask('PUT', `${location}?digest=${sha256('these bytes')}`))).toBe('BLOB_UPLOAD_UNKNOWN')
    expect((await ask('HEAD', `/v2/acme/wrong/blobs/${wrong}`)).status).toBe(404)
    expect(code(await ask('POST', `/v2/acme/wrong/blobs/uploads/?digest=${wrong}`, { body: 'x' }))).toBe(
      'DIGEST_INVALID',
    )
    expect(await registry.db.prisma.quotaDelta.count()).toBe(before)
    expect(await registry.db.prisma.upload.count({ where: { path: 'wrong' } })).toBe(0)
    const trashed = await registry.db.prisma.trashedObject.findMany({ where: { reason: 'digest mismatch' } })
    expect(trashed.every(({ state }) => state !== null)).toBe(true)
  })

  it('can be given up with the right to push', async () => {
    const location = (await ask('POST', '/v2/acme/app/blobs/uploads/', { as: 'dora' })).headers.get('location')!
    expect((await ask('DELETE', location, { as: 'dora' })).status).toBe(204)
    for (const method of ['GET', 'PATCH', 'DELETE'])
      expect((await ask(method, location, { as: 'dora' })).status).toBe(404)
  })

  it('survives a client that leaves in the middle of a chunk', async () => {
    const bytes = randomBytes(50_000)
    const location = await openUpload('acme/leaving')
    await ask('PATCH', location, { body: bytes.subarray(0, 20_000) })
    const token = await registry.issue(registry.principals.mia!, 'repository:acme/leaving:pull,push')
    await new Promise<void>((resolve) => {
      const req = request(registry.urls[0] + location, {
        method: 'PATCH',
        headers: { authorization: `Bearer ${token}`, 'content-length': 30_000 },
      })
      req.on('error', () => resolve())
      req.write(bytes.subarray(20_000, 30_000))
      setTimeout(() => req.destroy(), 50)
    })
    const rest = await ask('PATCH', location, {
      body: bytes.subarray(20_000),
      headers: { 'content-range': '20000-49999' },
    })
    expect(rest.status).toBe(202)
    expect((await ask('PUT', `${location}?digest=${sha256(bytes)}`)).status).toBe(201)
  })

  it('sends away who has too many open', async () => {
    await using small = await startRegistry({ settings: { uploadsPerPrincipal: 2 } })
    for (const expected of [202, 202, 429]) {
      const opened = await small.ask('POST', '/v2/acme/app/blobs/uploads/')
      expect(opened.status).toBe(expected)
      if (expected === 429) expect(Number(opened.headers.get('retry-after'))).toBeGreaterThan(0)
    }
  })

  it('ends what was left alone for an hour before it sends anybody away', async () => {
    await using small = await startRegistry({ settings: { uploadsPerPrincipal: 2 } })
    const open = () => small.ask('POST', '/v2/acme/app/blobs/uploads/')
    const [left, kept] = [await open(), await open()]
    const statusOf = async (upload: typeof left) => (await small.ask('GET', upload.headers.get('location')!)).status
    await small.db.prisma.upload.update({
      where: { id: left.headers.get('docker-upload-uuid')! },
      data: { updatedAt: new Date(Date.now() - 61 * 60_000) },
    })
    expect([(await open()).status, (await open()).status]).toEqual([202, 429])
    expect([await statusOf(left), await statusOf(kept)]).toEqual([404, 204])
  })
})

describe('mounts', () => {
  it('mounts from a repository that may be pulled, and trashes nothing', async () => {
    const digest = await registry.pushBlob('acme/source', randomBytes(1000))
    const scope = 'repository:acme/target:pull,push repository:acme/source:pull'
    const mounted = await ask('POST', `/v2/acme/target/blobs/uploads/?mount=${digest}&from=acme/source`, { scope })
    expect({ status: mounted.status, at: mounted.headers.get('location') }).toEqual({
      status: 201,
      at: `/v2/acme/target/blobs/${digest}`,
    })
    expect((await ask('HEAD', `/v2/acme/target/blobs/${digest}`)).status).toBe(200)
    const unnamed = await ask('POST', `/v2/acme/third/blobs/uploads/?mount=${digest}`, {
      scope: 'repository:acme/third:pull,push registry:mount:pull',
    })
    expect(unnamed.status).toBe(201)
    const basic = await ask('POST', `/v2/acme/fourth/blobs/uploads/?mount=${digest}`, { basic: true })
    expect(basic.status).toBe(201)
  })

  it('A39: sends a token that was not made for the source back for one that is, whatever is there', async () => {
    const mine = await registry.pushBlob('acme/source', randomBytes(1000))
    const secret = await registry.pushBlob('other/private', randomBytes(1000), { as: 'admin' })
    for (const [query, scope] of [
      [`mount=${mine}&from=acme/source`, 'repository:acme/source:pull'],
      [`mount=${secret}&from=other/private`, 'repository:other/private:pull'],
      [`mount=${sha256('nobody has it')}&from=acme/none`, 'repository:acme/none:pull'],
      [`mount=${mine}`, 'registry:mount:pull'],
      [`mount=${sha256('nobody has it')}`, 'registry:mount:pull'],
    ]) {
      for (const as of ['mia', 'nobody'] as const) {
        const refused = await ask('POST', `/v2/acme/oracle/blobs/uploads/?${query}`, { as })
        expect({ query, status: refused.status }).toEqual({ query, status: 401 })
        const wanted = `scope="repository:acme/oracle:pull,push ${scope}"`
        expect(refused.headers.get('www-authenticate')).toContain(wanted)
      }
    }
    expect((await ask('HEAD', `/v2/acme/oracle/blobs/${mine}`)).status).toBe(404)
  })

  it('A39: becomes an upload where the source is absent, unreadable or malformed', async () => {
    const secret = await registry.pushBlob('other/private', randomBytes(1000), { as: 'admin' })
    const mine = await registry.pushBlob('acme/source', randomBytes(1000))
    const target = '/v2/acme/oracle/blobs/uploads/'
    const both = 'repository:acme/oracle:pull,push repository:other/private:pull registry:mount:pull'
    const tries = [
      [`?mount=${secret}&from=other/private`, { scope: both }],
      [`?mount=${secret}&from=other/private`, { basic: true }],
      [`?mount=${secret}`, { scope: both }],
      [`?mount=${secret}`, { basic: true }],
      [`?mount=${mine}&from=../acme/source`, {}],
      [`?mount=${sha256('nobody has it')}&from=acme/source`, { basic: true }],
      [`?mount=nonsense&from=acme/source`, { basic: true }],
    ] as const
    for (const [query, given] of tries) {
      const answer = await ask('POST', target + query, given)
      expect({ query, status: answer.status }).toEqual({ query, status: 202 })
      expect((await ask('DELETE', answer.headers.get('location')!)).status).toBe(204)
    }
    expect((await ask('HEAD', `/v2/acme/oracle/blobs/${secret}`)).status).toBe(404)
  })
})

describe('blobs', () => {
  const bytes = randomBytes(200_000)
  const digest = sha256(bytes)
  const path = `/v2/acme/reading/blobs/${digest}`
  beforeAll(() => registry.pushBlob('acme/reading', bytes))

  it('answers HEAD with everything that GET has', async () => {
    const [head, get] = [await ask('HEAD', path), await ask('GET', path)]
    for (const name of ['content-length', 'content-type', 'docker-content-digest', 'etag', 'accept-ranges']) {
      expect(head.headers.get(name)).toBe(get.headers.get(name))
    }
    expect(get.headers.get('content-length')).toBe('200000')
    expect(get.headers.get('docker-content-digest')).toBe(digest)
    expect(get.body.equals(bytes)).toBe(true)
  })

  it('serves one range', async () => {
    for (const [range, first, last] of [
      ['bytes=0-99', 0, 99],
      ['bytes=199990-', 199_990, 199_999],
      ['bytes=-5', 199_995, 199_999],
      ['bytes=100-999999', 100, 199_999],
    ] as const) {
      const part = await ask('GET', path, { headers: { range } })
      expect({ range, status: part.status }).toEqual({ range, status: 206 })
      expect(part.headers.get('content-range')).toBe(`bytes ${first}-${last}/200000`)
      expect(part.body.equals(bytes.subarray(first, last + 1))).toBe(true)
    }
  })

  it('serves several ranges as multipart/byteranges', async () => {
    const parts = await ask('GET', path, { headers: { range: 'bytes=0-9,100-119' } })
    expect(parts.status).toBe(206)
    const boundary = /^multipart\/byteranges; boundary=(\w+)$/.exec(parts.headers.get('content-type')!)![1]!
    expect(Number(parts.headers.get('content-length'))).toBe(parts.body.length)
    const pieces = parts.body.toString('latin1').split(`\r\n--${boundary}`)
    expect(pieces).toHaveLength(4)
    expect(pieces[1]).toBe(
      `\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-9/200000\r\n\r\n${bytes.subarray(0, 10).toString('latin1')}`,
    )
    expect(pieces[2]).toContain(bytes.subarray(100, 120).toString('latin1'))
    expect(pieces[3]).toBe('--\r\n')
  })

  it('answers 416 outside the blob, 304 for a known ETag, and the whole blob for another version', async () => {
    const outside = await ask('GET', path, { headers: { range: 'bytes=200000-' } })
    expect({ status: outside.status, range: outside.headers.get('content-range') }).toEqual({
      status: 416,
      range: 'bytes */200000',
    })
    const known = await ask('GET', path, { headers: { 'if-none-match': `W/"${digest}"` } })
    // RFC 9110, 8.6: a length would be that of the blob.
    expect([known.status, known.headers.get('content-length')]).toEqual([304, null])
    expect((await ask('GET', path, { headers: { range: 'bytes=0-9', 'if-range': '"other"' } })).status).toBe(200)
    expect((await ask('GET', path, { headers: { range: 'bytes=0-9', 'if-range': `"${digest}"` } })).status).toBe(206)
  })

  it('leaves the bytes to a proxy that proves itself and can send them', async () => {
    const headers = { 'x-haven-proxy': 'p'.repeat(40), 'x-haven-can-send': '1', range: 'bytes=10-19' }
    const handed = await ask('GET', path, { headers })
    expect(handed.status).toBe(206)
    expect(handed.headers.get('x-haven-send')).toMatch(/^memory o\/[0-9a-f]{2}\/[0-9a-f-]{36} 10 10$/)
    expect(handed.headers.get('content-range')).toBe('bytes 10-19/200000')
    expect(handed.body).toHaveLength(0)
    const stranger = await ask('GET', path, { headers: { ...headers, 'x-haven-proxy': 'q'.repeat(40) } })
    expect(stranger.headers.get('x-haven-send')).toBeNull()
    expect(stranger.body).toHaveLength(10)
  })

  it('redirects to a store that signs URLs when it is set to, but not for small blobs', async () => {
    class SigningStorage extends MemoryStorage {
      signedUrl = async (key: string) => `https://store.example/${key}?signature=x`
    }
    await using redirecting = await startRegistry({
      storage: new SigningStorage(),
      settings: { blobReads: 'redirect' },
    })
    const large = await redirecting.pushBlob('acme/app', bytes)
    const small = await redirecting.pushBlob('acme/app', randomBytes(100))
    const sent = await redirecting.ask('GET', `/v2/acme/app/blobs/${large}`)
    expect(sent.status).toBe(307)
    expect(sent.headers.get('location')).toMatch(/^https:\/\/store\.example\/o\//)
    expect((await redirecting.ask('GET', `/v2/acme/app/blobs/${small}`)).status).toBe(200)
    expect((await redirecting.ask('HEAD', `/v2/acme/app/blobs/${large}`)).status).toBe(200)
  })

  it('is gone at once when it is deleted, though its bytes are in memory, and never was in another repository (A28)', async () => {
    const small = await registry.pushBlob('acme/forgotten', randomBytes(1000))
    const path = `/v2/acme/forgotten/blobs/${small}`
    for (let n = 0; n < 2; n++) {
      const answer = await ask('GET', path)
      expect(sha256(answer.body)).toBe(small)
      expect(answer.headers.get('content-length')).toBe('1000')
    }
    expect((await ask('GET', `/v2/acme/app/blobs/${small}`)).status).toBe(404)
    expect((await ask('DELETE', path)).status).toBe(202)
    expect((await ask('GET', path)).status).toBe(404)
  })

  it('is 404 for the digest of a manifest, as containerd asks first', async () => {
    const { digest: manifest } = await registry.pushImage('acme/reading', 'v1')
    const answer = await ask('GET', `/v2/acme/reading/blobs/${manifest}`)
    expect({ status: answer.status, code: code(answer) }).toEqual({ status: 404, code: 'BLOB_UNKNOWN' })
  })

  it('is not deleted while a manifest needs it', async () => {
    const image = await registry.pushImage('acme/deleting', 'v1')
    const blob = `/v2/acme/deleting/blobs/${image.layerDigest}`
    expect((await ask('DELETE', blob)).status).toBe(412)
    expect((await ask('DELETE', `/v2/acme/deleting/manifests/${image.digest}`)).status).toBe(202)
    expect((await ask('DELETE', blob)).status).toBe(202)
    expect((await ask('DELETE', blob)).status).toBe(404)
    expect((await ask('GET', blob)).status).toBe(404)
  })
})

describe('manifests', () => {
  it('serves what was pushed, whatever is accepted', async () => {
    const { manifest, digest, put } = await registry.pushImage('acme/app', 'v1')
    expect(put.status).toBe(201)
    expect(put.headers.get('location')).toBe(`/v2/acme/app/manifests/${digest}`)
    for (const accept of ['*/*', 'application/vnd.docker.distribution.manifest.v2+json;q=0.5', ociManifest]) {
      for (const reference of ['v1', digest]) {
        const path = `/v2/acme/app/manifests/${reference}`
        const [get, head] = [
          await ask('GET', path, { headers: { accept } }),
          await ask('HEAD', path, { headers: { accept } }),
        ]
        expect(get.status).toBe(200)
        expect(get.body.equals(manifest)).toBe(true)
        for (const answer of [get, head]) {
          expect(answer.headers.get('content-type')).toBe(ociManifest)
          expect(answer.headers.get('content-length')).toBe(String(manifest.length))
          expect(answer.headers.get('docker-content-digest')).toBe(digest)
          expect(answer.headers.get('etag')).toBe(`"${digest}"`)
        }
      }
    }
    for (const method of ['GET', 'HEAD']) {
      const known = await ask(method, '/v2/acme/app/manifests/v1', { headers: { 'if-none-match': `"${digest}"` } })
      expect([known.status, known.headers.get('content-length')]).toEqual([304, null])
    }
  })

  it('moves a tag, remembers from where, and keeps the old manifest by digest', async () => {
    const first = await registry.pushImage('acme/moving', 'latest')
    const second = await registry.pushImage('acme/moving', 'latest', { as: 'dora' })
    expect((await ask('HEAD', '/v2/acme/moving/manifests/latest')).headers.get('docker-content-digest')).toBe(
      second.digest,
    )
    expect((await ask('HEAD', `/v2/acme/moving/manifests/${first.digest}`)).status).toBe(200)
    const history = await registry.db.prisma.tagHistory.findMany({ where: { tag: 'latest' }, orderBy: { id: 'asc' } })
    expect(history.map(({ fromDigest, toDigest, actor, door }) => [fromDigest, toDigest, actor, door])).toEqual([
      [null, first.digest, 'mia', 'registry'],
      [first.digest, second.digest, 'dora', 'registry'],
    ])
  })

  it('takes several tags with a digest', async () => {
    const { manifest, digest } = await registry.pushImage('acme/tags', 'one')
    const put = await ask('PUT', `/v2/acme/tags/manifests/${digest}?tag=two&tag=three`, {
      body: manifest,
      headers: { 'content-type': ociManifest },
    })
    expect(put.headers.get('oci-tag')).toBe('three, two')
    expect((await ask('GET', '/v2/acme/tags/tags/list')).json()).toEqual({
      name: 'acme/tags',
      tags: ['one', 'three', 'two'],
    })
  })

  it('names every blob that is missing, and stores nothing', async () => {
    const manifest = imageManifest(Buffer.from('absent config'), Buffer.from('absent layer'))
    const put = await ask('PUT', '/v2/acme/incomplete/manifests/v1', {
      body: manifest,
      headers: { 'content-type': ociManifest },
    })
    expect(put.status).toBe(404)
    expect(
      put
        .json()
        .errors.map((e: any) => [e.code, e.detail.digest])
        .sort(),
    ).toEqual(
      [sha256('absent config'), sha256('absent layer')].sort().map((digest) => ['MANIFEST_BLOB_UNKNOWN', digest]),
    )
    expect((await ask('GET', '/v2/acme/incomplete/tags/list')).status).toBe(404)
  })

  it('lets an index be sparse or not, by setting', async () => {
    const index = indexOf([{ digest: sha256('absent'), size: 10 }])
    const given = { body: index, headers: { 'content-type': ociIndex } }
    expect((await ask('PUT', '/v2/acme/sparse/manifests/v1', given)).status).toBe(201)
    await using strict = await startRegistry({ settings: { sparseIndexes: false } })
    expect((await strict.ask('PUT', '/v2/acme/sparse/manifests/v1', given)).status).toBe(404)
  })

  it('refuses what is no manifest, is another digest, or is too long (A85, A86)', async () => {
    const { manifest } = await registry.pushImage('acme/bad', 'v1')
    const put = (reference: string, body: Uint8Array | string, type = ociManifest) =>
      ask('PUT', `/v2/acme/bad/manifests/${reference}`, { body, headers: { 'content-type': type } })
    expect(code(await put('v2', '{}'))).toBe('MANIFEST_INVALID')
    expect(code(await put('v2', 'not json'))).toBe('MANIFEST_INVALID')
    expect(code(await put('v2', manifest, 'application/json'))).toBe('MANIFEST_INVALID')
    expect(code(await put('v2', manifest, ociIndex))).toBe('MANIFEST_INVALID')
    expect(code(await put(sha256('other'), manifest))).toBe('DIGEST_INVALID')
    expect(code(await put(`md5:${'0'.repeat(32)}`, manifest))).toBe('DIGEST_INVALID')
    expect((await put('-bad-', manifest)).status).toBe(400)
    expect((await put('v2', '['.repeat(4 * 1024 * 1024))).status).toBe(400)
    expect((await put('v2', Buffer.alloc(4 * 1024 * 1024 + 1, 32))).status).toBe(413)
  })

  it('deletes by digest with all tags, by tag alone, and brings back what is pushed again', async () => {
    const { digest, manifest } = await registry.pushImage('acme/gone', 'a')
    const push = (tag: string) =>
      ask('PUT', `/v2/acme/gone/manifests/${tag}`, { body: manifest, headers: { 'content-type': ociManifest } })
    await push('b')
    expect((await ask('DELETE', '/v2/acme/gone/manifests/a')).status).toBe(202)
    expect((await ask('DELETE', '/v2/acme/gone/manifests/a')).status).toBe(404)
    expect((await ask('HEAD', `/v2/acme/gone/manifests/${digest}`)).status).toBe(200)
    expect((await ask('DELETE', `/v2/acme/gone/manifests/${digest}`)).status).toBe(202)
    for (const copy of [0, 1]) {
      for (const reference of ['b', digest]) {
        expect((await ask('GET', `/v2/acme/gone/manifests/${reference}`, {}, copy)).status).toBe(404)
      }
    }
    expect((await ask('GET', '/v2/acme/gone/tags/list')).json().tags).toEqual([])
    expect((await push('c')).status).toBe(201)
    expect((await ask('HEAD', `/v2/acme/gone/manifests/${digest}`)).status).toBe(200)
  })

  it('keeps a manifest that an index names', async () => {
    const child = await registry.pushImage('acme/multi', 'child')
    const index = indexOf([{ digest: child.digest, size: child.manifest.length }])
    await ask('PUT', '/v2/acme/multi/manifests/multi', { body: index, headers: { 'content-type': ociIndex } })
    expect((await ask('DELETE', `/v2/acme/multi/manifests/${child.digest}`)).status).toBe(412)
    expect((await ask('DELETE', `/v2/acme/multi/manifests/${sha256(index)}`)).status).toBe(202)
    expect((await ask('DELETE', `/v2/acme/multi/manifests/${child.digest}`)).status).toBe(202)
  })

  it('tells the outbox in the same transaction, and counts pulls', async () => {
    const { digest } = await registry.pushImage('acme/events', 'v1')
    const events = await registry.db.prisma.outboxEvent.findMany({ orderBy: { id: 'asc' } })
    const types = events
      .filter(({ payload }) => (payload as any).repository?.name === 'acme/events')
      .map(({ type }) => type.split('.').at(-1)!)
    expect(types.sort()).toEqual(['ArtifactPushed', 'RepositoryCreated', 'TagMoved'])

    for (let pull = 0; pull < 3; pull++) await ask('GET', '/v2/acme/events/manifests/v1')
    await ask('HEAD', '/v2/acme/events/manifests/v1')
    await until(async () => {
      const repository = await registry.db.prisma.repository.findFirst({ where: { path: 'events' } })
      return repository?.pullCount === 3n
    })
    const { id } = await registry.db.prisma.manifest.findFirstOrThrow({ where: { digest } })
    expect(await registry.db.prisma.lastPull.count({ where: { manifestId: id } })).toBe(1)
  })
})

describe('lists', () => {
  it('lists tags in the order of code points, page by page', async () => {
    const { manifest, digest } = await registry.pushImage('acme/pages', 'b')
    const query = ['a', 'B', 'c', '10', '9', '_x'].map((tag) => `tag=${tag}`).join('&')
    await ask('PUT', `/v2/acme/pages/manifests/${digest}?${query}`, {
      body: manifest,
      headers: { 'content-type': ociManifest },
    })
    const all = ['10', '9', 'B', '_x', 'a', 'b', 'c']
    const seen: string[] = []
    for (let next: string | null = '/v2/acme/pages/tags/list?n=3'; next;) {
      const page = await ask('GET', next)
      seen.push(...page.json().tags)
      next = /^<([^>]+)>; rel="next"$/.exec(page.headers.get('link') ?? '')?.[1] ?? null
    }
    expect(seen).toEqual(all)
    const list = async (q: string) => (await ask('GET', `/v2/acme/pages/tags/list${q}`)).json().tags
    expect(await list('')).toEqual(all)
    expect(await list('?n=0')).toEqual([])
    expect(await list('?n=99999999999')).toEqual(all)
    expect(await list('?last=AAA')).toEqual(all.slice(2))
    for (const bad of ['?n=-1', '?n=abc', '?last=%00', `?last=${'x'.repeat(600)}`]) {
      expect((await ask('GET', `/v2/acme/pages/tags/list${bad}`)).status).toBe(400) // A41
    }
    expect(code(await ask('GET', '/v2/acme/never/tags/list'))).toBe('NAME_UNKNOWN')
  })

  it('lists in the catalog what the caller may list, and nothing to strangers (A40)', async () => {
    await registry.pushImage('other/hidden', 'v1', { as: 'admin' })
    await registry.pushImage('open/shown', 'v1', { as: 'admin' })
    const names = async (as: Person, query = '') =>
      (await ask('GET', `/v2/_catalog${query}`, { as })).json().repositories
    const all: string[] = await names('admin')
    expect(all).toEqual([...all].sort())
    expect(all).toEqual(expect.arrayContaining(['acme/app', 'open/shown', 'other/hidden']))
    expect(await names('gus')).toEqual(all.filter((name: string) => !name.startsWith('other/')))
    expect(await names('stranger')).toEqual(['open/shown'])
    expect(await names('admin', '?n=2')).toEqual(all.slice(0, 2))
    expect(await names('admin', `?n=2&last=${all[1]}`)).toEqual(all.slice(2, 4))
    expect(await names('admin', '?last=open/shown')).toEqual(['other/hidden'])
    for (const path of ['/v2/_catalog', '/v2/%5fcatalog', '/v2/_catalog?n=1']) {
      for (const as of ['nobody', 'anonymous'] as const) expect((await ask('GET', path, { as })).status).toBe(401)
    }
    expect((await ask('GET', '/V2/_catalog', { as: 'nobody' })).status).toBe(404)
    expect((await ask('GET', '/v2/_catalog', { scope: 'repository:acme/app:pull' })).status).toBe(401)
  })
})

describe('referrers', () => {
  const push = (repository: string, reference: string, body: Buffer, type = ociManifest) =>
    ask('PUT', `/v2/${repository}/manifests/${reference}`, { body, headers: { 'content-type': type } })

  it('is an empty index for a digest that nobody has seen', async () => {
    const answer = await ask('GET', `/v2/acme/nothing/referrers/sha256:${'0'.repeat(64)}`)
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe(ociIndex)
    expect(answer.json()).toEqual({ schemaVersion: 2, mediaType: ociIndex, manifests: [] })
    expect((await ask('GET', '/v2/acme/nothing/referrers/sha256:zz')).status).toBe(400)
  })

  it('lists, filters and pages what is about a manifest, and says so when it is pushed', async () => {
    const subject = await registry.pushImage('acme/signed', 'v1')
    const about = { mediaType: ociManifest, digest: subject.digest, size: subject.manifest.length }
    const referrers: string[] = []
    for (const kind of ['sbom', 'signature+json', 'sbom']) {
      const layer = randomBytes(10)
      const config = Buffer.from('{}')
      await registry.pushBlob('acme/signed', layer)
      await registry.pushBlob('acme/signed', config)
      const manifest = imageManifest(config, layer, {
        subject: about,
        artifactType: `application/${kind}`,
        annotations: { 'org.example.kind': kind },
      })
      const put = await push('acme/signed', sha256(manifest), manifest)
      expect(put.headers.get('oci-subject')).toBe(subject.digest)
      referrers.push(sha256(manifest))
    }
    const path = `/v2/acme/signed/referrers/${subject.digest}`
    const all = (await ask('GET', path)).json().manifests
    expect(all.map((m: any) => m.digest)).toEqual(referrers)
    expect(all[0]).toMatchObject({
      mediaType: ociManifest,
      artifactType: 'application/sbom',
      annotations: { 'org.example.kind': 'sbom' },
    })

    const filtered = await ask('GET', `${path}?artifactType=application/sbom&n=1`)
    expect(filtered.headers.get('oci-filters-applied')).toBe('artifactType')
    expect(filtered.json().manifests.map((m: any) => m.digest)).toEqual([referrers[0]])
    // As it stands, which a form would read as a blank.
    const plus = await ask('GET', `${path}?artifactType=application/signature+json`)
    expect(plus.json().manifests.map((m: any) => m.digest)).toEqual([referrers[1]])
    const next = /^<([^>]+)>/.exec(filtered.headers.get('link')!)![1]!
    expect((await ask('GET', next)).json().manifests.map((m: any) => m.digest)).toEqual([referrers[2]])

    const tag = subject.digest.replace(':', '-')
    const synthesised = await ask('GET', `/v2/acme/signed/manifests/${tag}`)
    expect(synthesised.json().manifests).toEqual(all)
    expect(synthesised.headers.get('docker-content-digest')).toBe(sha256(synthesised.body))
    expect((await ask('HEAD', `/v2/acme/signed/manifests/${tag}`)).headers.get('content-length')).toBe(
      String(synthesised.body.length),
    )
  })

  it('reads the index that older clients write under the fallback tag', async () => {
    const subject = await registry.pushImage('acme/older', 'v1')
    const signature = await registry.pushImage('acme/older', 'signature')
    const entry = {
      mediaType: ociManifest,
      digest: signature.digest,
      size: signature.manifest.length,
      artifactType: 'application/old',
    }
    await push('acme/older', subject.digest.replace(':', '-'), indexOf([entry]), ociIndex)
    expect((await ask('GET', `/v2/acme/older/referrers/${subject.digest}`)).json().manifests).toEqual([entry])
  })

  // OCI Distribution 1.1, "Referrers Tag Schema": of what stands behind the colon, 64 characters.
  it('knows the fallback tag of a sha512 by half of it, read, written and when its subject goes', async () => {
    const { manifest, digest: plain } = await registry.pushImage('acme/longer', 'v1')
    const digest = sha512(manifest)
    expect((await push('acme/longer', digest, manifest)).status).toBe(201)
    const tag = digest.replace(':', '-').slice(0, 'sha512-'.length + 64)
    const path = `/v2/acme/longer/manifests/${tag}`
    expect((await ask('GET', path)).status).toBe(404)
    const subject = { mediaType: ociManifest, digest, size: manifest.length }
    const about = await registry.pushImage('acme/longer', 'about', { extra: { subject } })
    expect((await ask('GET', path)).json().manifests).toMatchObject([{ digest: about.digest }])

    const entry = { mediaType: ociManifest, digest: plain, size: manifest.length, artifactType: 'application/old' }
    const index = indexOf([entry])
    await push('acme/longer', tag, index, ociIndex)
    expect((await ask('GET', `/v2/acme/longer/referrers/${digest}`)).json().manifests).toMatchObject([
      { digest: about.digest },
      entry,
    ])
    expect((await ask('DELETE', `/v2/acme/longer/manifests/${digest}`)).status).toBe(202)
    expect((await ask('HEAD', `/v2/acme/longer/manifests/${sha256(index)}`)).status).toBe(404)
  })
})

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 10_000; !(await condition());) {
    if (Date.now() > deadline) throw new Error('it never came true')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
