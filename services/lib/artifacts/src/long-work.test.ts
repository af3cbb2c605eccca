import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { digestOf, mediaTypes, type Digest } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import {
  artifactDeps,
  copyArtifact,
  deleteRepository,
  grant,
  putManifest,
  type ArtifactDeps,
  type Right,
} from './index.ts'

let database: TestDatabase
let artifacts: ArtifactDeps
let project: ProjectFacts
beforeAll(async () => {
  database = await testDatabase()
  const { prisma } = database.db
  const { id } = await prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
  const at = new Date(0)
  const more = { ownerId: 1, registryId: null, metadata: {}, immutableRules: [], quotaBytes: -1 }
  project = { id, name: 'library', public: true, createdAt: at, updatedAt: at, ...more }
  artifacts = artifactDeps({ db: database.db, storage: new MemoryStorage() })
})
afterAll(async () => database[Symbol.asyncDispose]())

const may = <R extends Right>(right: R, repository: string) =>
  grant(right, { project, repository, principal: { kind: 'user', id: 1, name: 'ann' }, requestId: 'r', door: 'api' })

async function pushIndex(repository: string, children: readonly Digest[]): Promise<Digest> {
  const manifests = children.map((digest) => ({ mediaType: mediaTypes.ociIndex, digest, size: 100 }))
  const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }))
  const digest = digestOf(body)
  await putManifest(artifacts, may('push', repository), { reference: { digest }, mediaType: mediaTypes.ociIndex, body })
  return digest
}
const left = (path: string) =>
  database.db.prisma.manifest.count({ where: { deletedAt: null, repository: { path, deletedAt: null } } })
const over = AbortSignal.abort(new Error('time is over'))

describe('work that takes longer than a request may', () => {
  it('on a repository that goes ends between two transactions, and goes on when it is asked for again', async () => {
    await pushIndex('large', [])
    await database.db.prisma.$executeRaw`
      insert into artifacts.manifests
        (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, annotations, promised_until)
      select m.repository_id, 'sha256:' || lpad(n::text, 64, '0'), m.media_type, m.kind, m.type, m.payload, 2, 2, '{}', now()
        from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id, generate_series(1, 700) n
       where r.path = 'large'`
    await expect(deleteRepository(artifacts, may('delete', 'large'), { signal: over })).rejects.toThrow('time is over')
    expect(await left('large')).toBe(201)
    await deleteRepository(artifacts, may('delete', 'large'))
    expect(await left('large')).toBe(0)
    const told = (type: string) => database.db.prisma.outboxEvent.count({ where: { type: `haven.events.v1.${type}` } })
    expect([await told('ArtifactDeleted'), await told('RepositoryDeleted')]).toEqual([701, 1])
  })

  it('on a copy ends before the next manifest, and goes on when it is asked for again', async () => {
    const index = await pushIndex('wide', [await pushIndex('wide', [])])
    const copy = (signal?: AbortSignal) =>
      copyArtifact(artifacts, may('pull', 'wide'), may('push', 'copy'), index, signal && { signal })
    await expect(copy(over)).rejects.toThrow('time is over')
    expect(await left('copy')).toBe(0)
    await copy()
    expect(await left('copy')).toBe(2)
  })
})
