import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { openDatabase, type Database, type Tx } from '@haven/db'
import { problems } from '@haven/errors'
import { ensurePresets } from '@haven/identity'
import { digestOf, parseTag } from '@haven/oci'
import { charge, createProject, ProjectDirectory, type ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  deleteManifest,
  deleteRepository,
  deleteTag,
  finishUpload,
  forgetChanges,
  getBlob,
  getManifest,
  grant,
  putManifest,
  startUpload,
  type ArtifactDeps,
} from './index.ts'

let database: TestDatabase
let project: ProjectFacts
const others: Database[] = []

beforeAll(async () => {
  database = await testDatabase()
  await ensurePresets(database.db)
  using directory = new ProjectDirectory(database.db)
  const source = { principal: { kind: 'user' as const, id: 1, name: 'ann' } }
  await createProject({ db: database.db, directory }, source, { name: 'acme', ownerId: 1 })
  project = (await directory.byName('acme'))!
})
afterAll(async () => {
  for (const db of others) await db[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** A process of its own, as far as the database can tell. */
function replica(): ArtifactDeps {
  const db = openDatabase({ url: database.url, applicationName: 'haven-replica', poolSize: 2 })
  others.push(db)
  return artifactDeps({ db, storage: new MemoryStorage(), policies: { quota: charge } })
}

const facts = (repository: string) => ({
  project,
  repository,
  principal: { kind: 'user' as const, id: 1, name: 'ann' },
  requestId: 'r1',
  door: 'registry' as const,
})
const tag = (name: string) => ({ tag: parseTag(name)! })
const mediaType = 'application/vnd.oci.image.manifest.v1+json'

async function pushBlob(deps: ArtifactDeps, repository: string, bytes: Buffer) {
  const to = grant('push', facts(repository))
  const { id } = await startUpload(deps, to)
  const source = (async function* () {
    yield bytes
  })()
  await finishUpload(deps, to, id, {
    digest: digestOf(bytes),
    chunk: { source, offsetBytes: null, sizeBytes: bytes.length },
  })
  return digestOf(bytes)
}

async function push(deps: ArtifactDeps, repository: string, name: string, note: string) {
  const config = Buffer.from('{}')
  await pushBlob(deps, repository, config)
  const descriptor = {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: digestOf(config),
    size: config.length,
  }
  const body = Buffer.from(
    JSON.stringify({ schemaVersion: 2, mediaType, config: descriptor, layers: [], annotations: { note } }),
  )
  const pushed = await putManifest(deps, grant('push', facts(repository)), { reference: tag(name), mediaType, body })
  return pushed.digest
}

const pull = async (deps: ArtifactDeps, repository: string, name: string) =>
  (await getManifest(deps, grant('pull', facts(repository)), tag(name))).digest

/** Pulls again and again until told to stop. */
function keepPulling(deps: ArtifactDeps, repository: string, name: string) {
  const state = { on: true }
  const ended = (async () => {
    while (state.on) {
      await pull(deps, repository, name).catch((error: unknown) => {
        if (!problems.manifestUnknown.is(error) && !problems.nameUnknown.is(error)) throw error
      })
      await new Promise(setImmediate)
    }
  })()
  return async () => {
    state.on = false
    await ended
  }
}

/** The names of what a replica reads from now on. */
function readsOf({ db }: ArtifactDeps): string[] {
  const names: string[] = []
  const { reads } = db
  const one = reads.one.bind(reads)
  reads.one = (statement, values) => {
    names.push(statement.name)
    return one(statement, values)
  }
  return names
}

const warm = async (deps: ArtifactDeps, repository: string, name: string) => {
  for (let n = 0; n < 20; n++) {
    await pull(deps, repository, name)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

describe('recent answers', () => {
  it('spares the read of what was pulled a moment ago', async () => {
    const deps = replica()
    const asked = readsOf(deps)
    await push(deps, 'warm', 'v1', 'one')
    const digest = await pushBlob(deps, 'warm', Buffer.from('layer'))
    await warm(deps, 'warm', 'v1')
    asked.length = 0
    for (let n = 0; n < 200; n++) {
      await pull(deps, 'warm', 'v1')
      await getBlob(deps, grant('pull', facts('warm')), digest)
    }
    // A pause of the machine may outlast what a process knows; then an answer is read once more.
    expect(asked.filter((name) => name === 'manifests head by tag').length).toBeLessThan(20)
    expect(asked.filter((name) => name === 'blobs find').length).toBeLessThan(20)
  })

  it('never shows a tag’s former manifest once another process has said that it moved', async () => {
    const [writer, reader] = [replica(), replica()]
    await push(writer, 'moved', 'latest', '0')
    await warm(reader, 'moved', 'latest')
    const stop = keepPulling(reader, 'moved', 'latest')
    for (let n = 1; n <= 25; n++) {
      const digest = await push(writer, 'moved', 'latest', String(n))
      expect(await pull(reader, 'moved', 'latest')).toBe(digest)
    }
    await stop()
  })

  it('never shows what another process has said is deleted: a tag, a manifest, a repository', async () => {
    const [writer, reader] = [replica(), replica()]
    const stop = keepPulling(reader, 'gone', 'v1')
    const take = [
      () => deleteTag(writer, grant('delete', facts('gone')), parseTag('v1')!),
      (digest: ReturnType<typeof digestOf>) => deleteManifest(writer, grant('delete', facts('gone')), digest),
      () => deleteRepository(writer, grant('delete', facts('gone'))),
    ]
    for (let n = 0; n < 15; n++) {
      const digest = await push(writer, 'gone', 'v1', String(n))
      await warm(reader, 'gone', 'v1')
      await take[n % 3]!(digest)
      await expect(pull(reader, 'gone', 'v1')).rejects.toThrow()
    }
    await stop()
  })

  it('never shows what it has taken away itself, in whatever order it is told of changes', async () => {
    const deps = replica()
    const ask = deps.recent.settledWith.bind(deps.recent)
    let late = 0
    deps.recent.settledWith = (tx) => {
      const behind: Tx['behind'] = async (statement, values) => {
        const rows = await tx.behind(statement, values)
        await new Promise((resolve) => setTimeout(resolve, late))
        return rows
      }
      return ask({ behind } as Tx)
    }
    await push(deps, 'stays', 'v1', 'stays')
    const stop = keepPulling(deps, 'stays', 'v1')
    for (let n = 0; n < 12; n++) {
      late = (n % 4) * 10
      const digest = await push(deps, 'own', 'v1', String(n))
      await warm(deps, 'own', 'v1')
      const to = grant('delete', facts('own'))
      await (n % 2 === 0 ? deleteTag(deps, to, parseTag('v1')!) : deleteManifest(deps, to, digest))
      await expect(pull(deps, 'own', 'v1')).rejects.toThrow()
    }
    await stop()
  })

  it('would show it without waiting for whoever remembers: the wait is what this rests on', async () => {
    const [careless, reader] = [replica(), replica()]
    const impatient = { ...careless, recent: Object.assign(careless.recent, { settled: async () => undefined }) }
    await push(impatient, 'stale', 'latest', '0')
    await warm(reader, 'stale', 'latest')
    let stale = 0
    for (let n = 1; n <= 40; n++) {
      await warm(reader, 'stale', 'latest')
      const digest = await push(impatient, 'stale', 'latest', String(n))
      if ((await pull(reader, 'stale', 'latest')) !== digest) stale++
    }
    expect(stale).toBeGreaterThan(0)
  })

  it('shows what was added at once', async () => {
    const [writer, reader] = [replica(), replica()]
    await push(writer, 'added', 'first', '0')
    await warm(reader, 'added', 'first')
    for (let n = 0; n < 10; n++) {
      await expect(pull(reader, 'added', `v${n}`)).rejects.toThrow()
      const digest = await push(writer, 'added', `v${n}`, String(n))
      expect(await pull(reader, 'added', `v${n}`)).toBe(digest)
    }
  })

  it('keeps no change for longer than somebody may ask for it', async () => {
    const deps = replica()
    await push(deps, 'forgotten', 'latest', '0')
    await push(deps, 'forgotten', 'latest', '1')
    const count = () => database.db.prisma.change.count()
    const kept = await count()
    expect(kept).toBeGreaterThan(0)
    await forgetChanges(database.db)
    expect(await count()).toBe(kept)
    await database.db.prisma.change.updateMany({ data: { changedAt: new Date(Date.now() - 601_000) } })
    expect(await forgetChanges(database.db)).toBe(kept)
    expect(await count()).toBe(0)
  })
})
