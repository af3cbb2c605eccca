import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { digestOf } from '@haven/oci'
import { FileStorage, newObjectKey, type BlobStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { verifyStore } from '../src/gc/index.ts'

let database: TestDatabase
let storage: BlobStorage
let folder: string

beforeAll(async () => {
  database = await testDatabase()
  folder = mkdtempSync(join(tmpdir(), 'haven-gc-'))
  storage = await FileStorage.open(folder)
})
afterAll(async () => {
  await storage[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

/** A blob with its object, linked to a repository whose manifest needs it or not. */
async function blob(repositoryId: number, neededBy: bigint | null) {
  const bytes = randomBytes(100)
  const [key, digest] = [newObjectKey(), digestOf(bytes)]
  const source = (async function* () {
    yield bytes
  })()
  const { state } = await storage.append(key, null, 0, source)
  await storage.complete(key, state, 100)
  const { prisma } = database.db
  const promisedUntil = new Date(0)
  await prisma.blob.create({
    data: {
      digest,
      sizeBytes: 100n,
      promisedUntil,
      locations: { create: { store: 'files', key } },
      links: { create: { repositoryId, promisedUntil } },
    },
  })
  if (neededBy !== null) {
    const edge = {
      manifestId: neededBy,
      position: 0,
      repositoryId,
      kind: 'layer',
      digest,
      mediaType: 'm',
      sizeBytes: 100n,
    }
    await prisma.manifestEdge.create({ data: edge })
  }
}

async function manifest(repositoryId: number, n: number, tag: string | null) {
  const { prisma } = database.db
  const { id } = await prisma.manifest.create({
    data: {
      repositoryId,
      digest: digestOf(`manifest ${n}`),
      mediaType: 'm',
      kind: 'image',
      payload: Buffer.from('{}'),
      payloadBytes: 2,
      totalBytes: 102n,
      pushedAt: new Date(0),
    },
  })
  if (tag) await prisma.tag.create({ data: { repositoryId, name: tag, manifestId: id } })
  return id
}

async function collect(fault: string): Promise<NodeJS.Signals | number | null> {
  const script = fileURLToPath(new URL('collect-once.ts', import.meta.url))
  const child = spawn(process.execPath, [script, database.url, folder], {
    env: { ...process.env, NODE_ENV: 'test', NODE_OPTIONS: '', FAULT: fault },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  return signal ?? code
}

describe('a garbage collection that is killed (F38)', () => {
  it('at any step is finished by the next, and no blob that is needed is lost', async () => {
    const { prisma } = database.db
    const project = await prisma.project.create({ data: { name: 'p', nameKey: 'p', ownerId: 1 } })
    const { id: repositoryId } = await prisma.repository.create({ data: { projectId: project.id, path: 'app' } })
    for (let n = 0; n < 6; n++) await blob(repositoryId, await manifest(repositoryId, n, n % 2 === 0 ? `t${n}` : null))
    for (let n = 0; n < 3; n++) await blob(repositoryId, null)

    const outcomes: unknown[] = []
    for (const point of ['gc.candidates', 'gc.locked', 'gc.committed', 'gc.beforeErase', 'gc.erased']) {
      outcomes.push(await collect(`${point}:1:exit`))
      const findings = []
      for await (const { finding } of verifyStore(database.db, storage, { deep: true }))
        if (finding) findings.push(finding)
      expect(findings).toEqual([]) // no record without its bytes
    }
    expect(outcomes).toContain('SIGKILL')
    await prisma.$executeRaw`update artifacts.trash set erase_after = now()` // the time that a killed eraser holds it for
    expect(await collect('')).toBe(0)

    expect(await prisma.manifest.count()).toBe(3)
    expect(await prisma.blob.count()).toBe(3)
    expect(await prisma.trashedObject.count()).toBe(0)
    const keys = new Set<string>()
    for await (const { key } of storage.list()) keys.add(key)
    expect(keys).toEqual(new Set((await prisma.blobLocation.findMany()).map((location) => location.key)))
    const [{ given }] = await prisma.$queryRaw<[{ given: number }]>`
      select coalesce(sum(delta_bytes), 0)::int as given from projects.quota_deltas`
    expect(given).toBe(-(3 * 2 + 6 * 100))
  })
})
