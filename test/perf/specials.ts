import { randomBytes } from 'node:crypto'
import { FakeS3 } from '@haven/testkit/fake-s3'
import { forgetPeaks, peakMemoryMiB } from './cpu.ts'
import { call, expectStatus } from './http.ts'
import { median, type Shown } from './judge.ts'
import { prepareLoad, type Load, type LoadResult } from './load.ts'
import { MIB, REPOSITORIES, manifests } from './rows.ts'
import { REPOSITORY, blobPath, seedBlob, seedImage } from './seed.ts'
import { haven, type Scope, type Subject } from './subjects.ts'

const pulls: Scope = { repositories: [REPOSITORY], actions: 'pull' }
const pushes: Scope = { repositories: [REPOSITORY], actions: 'pull,push' }

type ClientLoad = Extract<Load, { tool: 'client' }>

/** A load of our own client, at once. */
export async function run(
  subject: Subject,
  scope: Scope,
  load: Pick<ClientLoad, 'operation' | 'connections' | 'seconds' | 'atMost'>,
): Promise<LoadResult> {
  const began = Date.now()
  const headers = await subject.headers(scope)
  using prepared = await prepareLoad({ tool: 'client', port: subject.port, tls: subject.tls, headers, ...load })
  const result = await prepared.run()
  subject.sweep(began)
  return result
}

/** P10: manifests by sixteen connections into one repository, by the rate into sixteen. */
export async function oneRepository(subject: Subject, rounds: number): Promise<Shown> {
  const rate = async (repositories: readonly string[]) => {
    const scope: Scope = { repositories, actions: 'pull,push' }
    const load = { operation: manifests(repositories), connections: 16, seconds: 1 }
    const { operations, seconds } = await run(subject, scope, load)
    return operations / seconds
  }
  const ratios: number[] = []
  for (let round = 0; round < rounds; round++) {
    const [one, many] = [await rate(REPOSITORIES.slice(0, 1)), await rate(REPOSITORIES)]
    ratios.push(one / many)
  }
  return { values: { 'one repository by many': median(ratios) } }
}

/** Of a Haven: the process that clients speak to. Of a peer: all of it. */
export function frontOf({ installation, roots }: Subject): number[] {
  if (!installation) return [...roots]
  const front = Object.entries(installation.processes()).filter(([name]) => name.startsWith('front'))
  return front.flatMap(([, pid]) => (pid === null ? [] : [pid]))
}

async function peakDuring(subject: Subject, work: () => Promise<unknown>): Promise<number> {
  forgetPeaks(frontOf(subject))
  await work()
  return peakMemoryMiB(frontOf(subject))
}

/** P14: peak memory while `connections` clients each download 16 MiB. */
export async function downloadMemory(ours: Subject, peer: Subject): Promise<Shown> {
  const bytes = 16 * MIB
  const during = async (subject: Subject, connections: number) => {
    const digest = await seedBlob(subject, REPOSITORY, randomBytes(bytes))
    const paths = [blobPath(subject, REPOSITORY, digest)]
    const operation = { kind: 'read', method: 'GET', paths, status: 200, bytes } as const
    // No seconds: each connection downloads once to be proved, all at once, and once more.
    return peakDuring(subject, () => run(subject, pulls, { operation, connections, seconds: 0 }))
  }
  const one = await during(ours, 1)
  const many = await during(ours, 256)
  const theirs = await during(peer, 256)
  return { values: { front: many, 'front by N3': many / theirs, 'growth from 1 to 256': many - one } }
}

/** P15: peak memory while sixteen blobs of 256 MiB are pushed at once, and by what sixteen of 16 MiB take. */
export async function uploadMemory(subject: Subject): Promise<Shown> {
  const during = (bytes: number) =>
    peakDuring(subject, () =>
      run(subject, pushes, {
        operation: { kind: 'push', repositories: [REPOSITORY], bytes },
        connections: 16,
        seconds: 0,
      }),
    )
  const small = await during(16 * MIB)
  const large = await during(256 * MIB)
  return { values: { front: large, '256 MiB by 16 MiB': large / small } }
}

const TRANSFERS = [
  'PutObject',
  'GetObject',
  'HeadObject',
  'DeleteObject',
  'CreateMultipartUpload',
  'UploadPart',
] as const
const ENDINGS = ['CompleteMultipartUpload', 'AbortMultipartUpload', 'ListMultipartUploads', 'ListObjectsV2'] as const

/** P16: what a push and a pull ask of an object store that counts. Large: also a push of 512 MiB. */
export async function objectStore({ large }: { large: boolean }): Promise<{ shown: Shown; large: Shown | null }> {
  await using store = await FakeS3.start()
  await using subject = await haven('haven', {
    STORAGE_DRIVER: 's3',
    // A client is not redirected to the host that it came to.
    S3_ENDPOINT: store.endpoint.replace('127.0.0.1', 'localhost'),
    S3_ACCESS_KEY: 'perf',
    S3_SECRET_KEY: 'perf-secret',
    REGISTRY_BLOB_READS: 'redirect',
  })
  const count = () => [...TRANSFERS, ...ENDINGS].reduce((sum, each) => sum + (store.requests.get(each) ?? 0), 0)
  // What was left over is looked for at the start.
  for (let before = -1; before !== count(); await new Promise((resolve) => setTimeout(resolve, 2000))) before = count()
  const counted = async (work: () => Promise<unknown>) => {
    const before = count()
    await work()
    return count() - before
  }
  const push = (bytes: number) => counted(() => seedBlob(subject, REPOSITORY, randomBytes(bytes)))
  const [small, middle] = [await push(MIB), await push(64 * MIB)]
  const hugePush = large ? await push(512 * MIB) : null

  const image = await seedImage(subject, REPOSITORY, '1', [MIB, MIB])
  const headers = await subject.headers(pulls)
  const get = (path: string, status: number) => expectStatus(status, call(subject, 'GET', path, { headers }), path)
  await get(image.manifest.path, 200)
  const manifestGet = await counted(() => get(image.manifest.path, 200))
  // The config is small: it is sent, as everything is below the size at which a second request costs more than the bytes.
  let through = 0
  for (const { digest } of image.blobs.slice(1)) {
    through += (await get(`/v2/${REPOSITORY}/blobs/${digest}`, 307)).body.byteLength
  }
  // The store in memory knows no CopyObject: a registry that copied would have failed.
  const values = {
    'S3 requests of a push of 1 MiB': small,
    'S3 requests of a push of 64 MiB': middle,
    'S3 requests of a manifest GET': manifestGet,
    'bytes copied inside S3': 0,
    'layer bytes through us in a redirected pull': through,
    'SQL transactions of a warm manifest GET': await transactionsPerGet(subject, image.manifest.path),
  }
  return {
    shown: { values },
    large: hugePush === null ? null : { values: { 'S3 requests of a push of 512 MiB': hugePush } },
  }
}

/** Postgres tells of an idle connection's transactions after ten seconds (its cumulative statistics system). */
const STATISTICS_SETTLE_MS = 10_500

/** One connection, so that no two requests share a read. Each statement of the path is a transaction of its own. */
async function transactionsPerGet(subject: Subject, path: string): Promise<number> {
  const committed = async () => {
    await new Promise((resolve) => setTimeout(resolve, STATISTICS_SETTLE_MS))
    const [row] = await subject.installation!.query<{ count: string }>(
      'select sum(xact_commit) as count from pg_stat_database where datname = current_database()',
    )
    return Number(row!.count)
  }
  const before = await committed()
  const operation = { kind: 'read', method: 'GET', paths: [path], status: 200, bytes: -1 } as const
  const { operations } = await run(subject, pulls, { operation, connections: 1, seconds: 3 })
  return ((await committed()) - before) / operations
}
