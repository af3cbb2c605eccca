import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { request, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { Client, digestOf, newImage, pushImage } from './client.ts'
import { disagreements, isHealthy, processesOf, repositories, sleep, startReplica, until } from './harness.ts'

const [repository] = repositories
const MIB = 1024 * 1024
/** I22 of reliability.md: whatever clients do, a process that is told to stop has gone by then. */
const STOPPED_MS = 30_000

let haven: HavenInstallation
let client: Client
/** Larger than all buffers between the store and a reader that does not read. */
const large = randomBytes(64 * MIB)

beforeAll(async () => {
  haven = await startHaven()
  client = new Client(haven.url)
  expect((await client.signIn(repositories)).status).toBe(200)
  expect((await client.pushBlob(repository, large)).status).toBe(201)
}, 120_000)

afterAll(async () => {
  client?.close()
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

/** Sends a chunk in pieces, one every `everyMs`. The status; 0 when the connection was cut. */
async function sendSlowly(through: Client, location: string, bytes: Buffer, pieces: number, everyMs: number) {
  const answered = Promise.withResolvers<number>()
  const req = request(new URL(location, through.url), {
    method: 'PATCH',
    headers: {
      authorization: through.authorization,
      'content-length': String(bytes.length),
      'content-type': 'application/octet-stream',
    },
  })
  req.once('error', () => answered.resolve(0))
  req.once('response', (res) => {
    res.resume()
    answered.resolve(res.statusCode!)
  })
  const size = Math.ceil(bytes.length / pieces)
  for (let at = 0; at < bytes.length && !req.destroyed; at += size) {
    req.write(bytes.subarray(at, at + size))
    await sleep(everyMs)
  }
  req.end()
  return answered.promise
}

/** Reads a blob with pauses between its buffers. The whole of it, or null when it did not end well. */
async function readSlowly(through: Client, digest: string, ms: number): Promise<Buffer | null> {
  const res = await new Promise<IncomingMessage>((resolve, reject) => {
    const url = new URL(`/v2/${repository}/blobs/${digest}`, through.url)
    request(url, { headers: { authorization: through.authorization } }, resolve)
      .once('error', reject)
      .end()
  })
  await sleep(ms)
  const parts: Buffer[] = []
  try {
    for await (const part of res) parts.push(part as Buffer)
  } catch {
    return null
  }
  return Buffer.concat(parts)
}

describe('a process that is told to stop (I22)', () => {
  it('finishes the upload and the download under way, takes nothing new, and exits with 0', async () => {
    await using replica = await startReplica(haven)
    const doomed = client.at(replica.url)
    const bytes = randomBytes(4 * MIB)
    const { location } = await doomed.startUpload(repository)
    const uploading = sendSlowly(doomed, location, bytes, 8, 400)
    const downloading = readSlowly(doomed, digestOf(large), 3000)
    await sleep(800)
    const toldAt = performance.now()
    process.kill(replica.pid, 'SIGTERM')
    await until(
      'new connections are refused',
      async () => {
        const answer = await new Client(replica.url).send('GET', '/v2/').catch(() => null)
        return answer === null
      },
      10_000,
    )
    expect(await uploading).toBe(202)
    expect((await downloading)?.equals(large)).toBe(true)
    expect(await replica.exited).toBe(0)
    expect(performance.now() - toldAt).toBeLessThan(STOPPED_MS)
    // The other process goes on with what this one has accepted.
    expect((await client.finish(location, digestOf(bytes))).status).toBe(201)
    expect((await client.getBlob(repository, digestOf(bytes))).body.equals(bytes)).toBe(true)
    doomed.close()
  }, 60_000)

  it('cuts off who is slower than it may wait, and still exits in time with nothing half-written', async () => {
    await using replica = await startReplica(haven, { HAVEN_DRAIN: '5s' })
    const doomed = client.at(replica.url)
    const { location } = await doomed.startUpload(repository)
    // A minute's worth: longer than any drain.
    const uploading = sendSlowly(doomed, location, randomBytes(MIB), 60, 1000)
    const downloading = readSlowly(doomed, digestOf(large), 12_000)
    await sleep(500)
    const toldAt = performance.now()
    process.kill(replica.pid, 'SIGTERM')
    expect(await replica.exited).toBe(0)
    expect(performance.now() - toldAt).toBeLessThan(STOPPED_MS)
    expect(await uploading).not.toBe(202)
    // Never a short body with a clean end.
    expect(await downloading).toBeNull()
    const status = await client.send('GET', location)
    expect(status).toMatchObject({ status: 204, headers: { range: '0-0' } })
    expect(await disagreements(haven)).toEqual([])
    doomed.close()
  }, 90_000)
})

describe('haven down', () => {
  it('ends in time with pushes under way; what was acknowledged is there after the next start', async () => {
    const images = Array.from({ length: 200 }, () => newImage())
    const acknowledged: string[] = []
    let stopped = false
    const pushing = Array.from({ length: 4 }, async (_, actor) => {
      for (let n = actor; n < images.length && !stopped; n += 4) {
        const image = images[n]!
        const answer = await pushImage(client, repository, image.digest, image).catch(() => null)
        if (answer?.status === 201) acknowledged.push(image.digest)
        else if (answer) expect([502, 503]).toContain(answer.status)
      }
    })
    await sleep(1000)
    expect(processesOf(haven.home).length).toBeGreaterThan(3)
    const toldAt = performance.now()
    const { code, output } = await haven.command('down')
    stopped = true
    await Promise.all(pushing)
    expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining('Haven has stopped') })
    expect(performance.now() - toldAt).toBeLessThan(STOPPED_MS)
    expect(processesOf(haven.home)).toEqual([])
    expect(acknowledged.length).toBeGreaterThan(0)

    expect((await haven.command('up')).code).toBe(0)
    await until('all is healthy', () => isHealthy(haven, client), 10_000)
    for (const image of images) {
      const { status, body } = await client.getManifest(repository, image.digest)
      if (acknowledged.includes(image.digest)) expect(body.equals(image.manifest)).toBe(true)
      else expect([200, 404]).toContain(status)
    }
    expect(await disagreements(haven)).toEqual([])
  }, 90_000)
})

describe('a killed supervisor', () => {
  it('leaves nothing in the way of the next start, and loses nothing', async () => {
    const image = newImage()
    expect((await pushImage(client, repository, 'kept', image)).status).toBe(201)
    const { pid } = JSON.parse(readFileSync(join(haven.home, 'state.json'), 'utf8')) as { pid: number }
    const before = Object.values(haven.processes()).filter((each) => each !== null)
    process.kill(pid, 'SIGKILL')
    expect((await haven.command('up')).code).toBe(0)
    await until('all is healthy', () => isHealthy(haven, client), 10_000)
    const now = Object.values(haven.processes())
    const isThere = (each: number) => !now.includes(each) && existsSync(`/proc/${each}/cwd`)
    await until('all of the one before have gone', () => !before.some(isThere), 30_000)
    expect((await client.getManifest(repository, 'kept')).body.equals(image.manifest)).toBe(true)
    expect(await disagreements(haven)).toEqual([])
  }, 90_000)
})
