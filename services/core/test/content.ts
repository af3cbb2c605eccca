import {
  artifactDeps,
  finishUpload,
  grant,
  projectPolicies,
  putManifest,
  startUpload,
  type PushGrant,
} from '@haven/artifacts'
import { digestOf, mediaTypes, parseReference, type Digest } from '@haven/oci'
import type { TestCore } from './harness.ts'

type Manifest = { config?: unknown; configType?: string; layer?: Buffer; layerType?: string; more?: object }

export type Content = ReturnType<typeof contentOf>

/** Puts artifacts into the repositories of a core, as the registry does. */
export function contentOf(core: TestCore) {
  const artifacts = artifactDeps({ db: core.db, storage: core.storage, policies: projectPolicies })

  async function pushing(repository: string): Promise<PushGrant> {
    const [name = '', ...path] = repository.split('/')
    const project = (await core.directory.byName(name))!
    const principal = { kind: 'user' as const, id: 1, name: 'admin' }
    return grant('push', { project, repository: path.join('/'), principal, requestId: 'r', door: 'registry' })
  }

  async function pushBlob(to: PushGrant, bytes: Buffer) {
    const digest = digestOf(bytes)
    const { id } = await startUpload(artifacts, to)
    async function* source() {
      yield bytes
    }
    await finishUpload(artifacts, to, id, {
      digest,
      chunk: { source: source(), offsetBytes: null, sizeBytes: bytes.length },
    })
    return { digest, size: bytes.length }
  }

  /** Without a reference: by digest. */
  async function push(repository: string, reference: string, manifest: Manifest = {}): Promise<Digest> {
    const to = await pushing(repository)
    const config = manifest.config ?? { architecture: 'amd64', os: 'linux', seed: `${repository}:${reference}` }
    const bytes = Buffer.isBuffer(config) ? config : Buffer.from(JSON.stringify(config))
    const layer = manifest.layer ?? Buffer.from(`layer of ${repository}:${reference}`)
    const body = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        config: { mediaType: manifest.configType ?? mediaTypes.ociConfig, ...(await pushBlob(to, bytes)) },
        layers: [
          {
            mediaType: manifest.layerType ?? 'application/vnd.oci.image.layer.v1.tar',
            ...(await pushBlob(to, layer)),
          },
        ],
        ...manifest.more,
      }),
    )
    const digest = digestOf(body)
    const named = reference === '' ? { digest } : parseReference(reference)!
    await putManifest(artifacts, to, { reference: named, mediaType: mediaTypes.ociManifest, body })
    return digest
  }

  /** Its platforms: amd64, arm64, then riscv64. */
  async function pushIndex(repository: string, tag: string, children: readonly Digest[]): Promise<Digest> {
    const to = await pushing(repository)
    const body = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaTypes.ociIndex,
        manifests: children.map((digest, i) => ({
          mediaType: mediaTypes.ociManifest,
          digest,
          size: 100,
          platform: { architecture: ['amd64', 'arm64'][i] ?? 'riscv64', os: 'linux' },
        })),
      }),
    )
    await putManifest(artifacts, to, { reference: parseReference(tag)!, mediaType: mediaTypes.ociIndex, body })
    return digestOf(body)
  }

  /** A blob for a manifest of the repository. */
  const blob = async (repository: string, bytes: Buffer) => pushBlob(await pushing(repository), bytes)

  /** A manifest as it is given. */
  async function pushManifest(
    repository: string,
    reference: string,
    manifest: object,
    mediaType: string,
  ): Promise<Digest> {
    const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...manifest }))
    const digest = digestOf(body)
    const named = reference === '' ? { digest } : parseReference(reference)!
    await putManifest(artifacts, await pushing(repository), { reference: named, mediaType, body })
    return digest
  }

  /** How many statements Postgres is asked while `work` runs. */
  async function statements(work: () => Promise<unknown>): Promise<number> {
    const { db } = core
    let asked = 0
    const raw = db.prisma.$queryRaw.bind(db.prisma)
    const rows = db.writes.rows.bind(db.writes)
    Object.assign(db.prisma, { $queryRaw: (...given: Parameters<typeof raw>) => (asked++, raw(...given)) })
    Object.assign(db.writes, { rows: (...given: Parameters<typeof rows>) => (asked++, rows(...given)) })
    try {
      await work()
    } finally {
      Object.assign(db.prisma, { $queryRaw: raw })
      Object.assign(db.writes, { rows })
    }
    return asked
  }

  return { push, pushIndex, blob, pushManifest, statements }
}
