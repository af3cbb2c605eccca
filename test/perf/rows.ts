import type { Load, Operation } from './load.ts'
import { blobPath, REPOSITORY, type SeededImage } from './seed.ts'
import type { Scope, Subject, SubjectKey } from './subjects.ts'
import type { RowId } from './targets.ts'

export const KIB = 1024
export const MIB = 1024 * KIB

/** What a subject holds before the rows begin. */
export type Seeded = {
  /** A config and six layers of 4 KiB. */
  image: SeededImage
  /** A config and twenty layers, 50 MiB together; in the full tier. */
  typical: SeededImage | null
  /** Digests of single blobs by size. */
  blobs: ReadonlyMap<number, string>
  /** A window of manifests by tag, none of which was asked for before when the subject can hold so many. */
  unseen(): readonly string[]
}

export type Row = {
  id: RowId
  name: string
  tier: 'gate' | 'full'
  /** Ours first. */
  subjects: readonly [SubjectKey, ...SubjectKey[]]
  /** Of one operation, when the row is about bytes. */
  bytes?: number
  seconds: number
  /** A bound on the bytes that a push leaves on the disk. */
  atMost?: number
  connections: number
  scope: Scope
  load: (subject: Subject, seeded: Seeded) => LoadOf
  /** What runs meanwhile: its CPU is in the same processes, so the row's CPU says nothing. */
  meanwhile?: { connections: number; scope: Scope; load: LoadOf }
}

type LoadOf = Pick<Load & { tool: 'client' }, 'tool' | 'operation'> | Pick<Load & { tool: 'wrk' }, 'tool' | 'path'>

const pulls: Scope = { repositories: [REPOSITORY], actions: 'pull' }
const pushes: Scope = { repositories: [REPOSITORY], actions: 'pull,push' }
/** One for each of sixteen connections. */
export const REPOSITORIES = Array.from({ length: 16 }, (_, n) => `library/bench-${n}`)
/** Holds 10⁵ tags. */
export const MANY = 'library/many'

const manifest = (_: Subject, { image }: Seeded): LoadOf => ({ tool: 'wrk', path: image.manifest.path })

const getBlob =
  (size: number) =>
  (subject: Subject, { blobs }: Seeded): LoadOf => {
    const digest = blobs.get(size)!
    return {
      tool: 'client',
      operation: {
        kind: 'read',
        method: 'GET',
        paths: [blobPath(subject, REPOSITORY, digest)],
        status: 200,
        bytes: size,
        sha256: digest.slice('sha256:'.length),
      },
    }
  }

const push = (bytes: number): LoadOf => ({
  tool: 'client',
  operation: { kind: 'push', repositories: [REPOSITORY], bytes },
})

export const CONFIG_DIGEST = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a' // of {}

export const manifests = (repositories: readonly string[]): Operation => ({
  kind: 'manifest',
  repositories,
  config: CONFIG_DIGEST,
  configBytes: 2,
})

const wholePull =
  (imageOf: (seeded: Seeded) => SeededImage) =>
  (subject: Subject, seeded: Seeded): LoadOf => {
    const { manifest: of, blobs } = imageOf(seeded)
    const paths = [of.path, ...blobs.map(({ digest }) => `/v2/${REPOSITORY}/blobs/${digest}`)]
    return { tool: 'client', operation: { kind: 'pull', paths, token: subject.token?.(pulls) ?? null } }
  }

export const rows: readonly Row[] = [
  {
    id: 'P1',
    name: 'manifest GET by tag, warm, c=16',
    tier: 'gate',
    subjects: ['haven', 'N3', 'D3', 'D2', 'H'],
    seconds: 2,
    connections: 16,
    scope: pulls,
    load: manifest,
  },
  {
    id: 'P2',
    name: 'manifest GET by tag, each another one, c=16',
    tier: 'gate',
    subjects: ['haven', 'N3', 'H'],
    seconds: 1.5,
    connections: 16,
    scope: { repositories: [REPOSITORY, MANY], actions: 'pull' },
    load: (subject, { unseen }) => ({
      tool: 'client',
      operation: {
        kind: 'read',
        method: 'GET',
        paths: unseen(),
        status: 200,
        bytes: -1,
        // A window that nobody asked for before is asked for once; peers keep no manifests, so theirs may come again.
        once: subject.key === 'haven',
      },
    }),
  },
  {
    id: 'P3',
    name: 'manifest GET by tag, split, c=16',
    tier: 'full',
    subjects: ['split', 'N3', 'H'],
    seconds: 2,
    connections: 16,
    scope: pulls,
    load: manifest,
  },
  {
    id: 'P4',
    name: 'HEAD blob, c=16',
    tier: 'full',
    subjects: ['haven', 'N3', 'H'],
    seconds: 1.5,
    connections: 16,
    scope: pulls,
    load: (_, { blobs }) => ({
      tool: 'client',
      operation: {
        kind: 'read',
        method: 'HEAD',
        paths: [`/v2/${REPOSITORY}/blobs/${blobs.get(MIB)!}`],
        status: 200,
        bytes: MIB,
      },
    }),
  },
  {
    id: 'P5 1 MiB',
    name: 'blob GET 1 MiB, c=4',
    tier: 'gate',
    subjects: ['haven', 'D3', 'H'],
    bytes: MIB,
    seconds: 1.5,
    connections: 4,
    scope: pulls,
    load: getBlob(MIB),
  },
  {
    id: 'P5 16 MiB',
    name: 'blob GET 16 MiB, c=4',
    tier: 'gate',
    subjects: ['haven', 'D3'],
    bytes: 16 * MIB,
    seconds: 1.5,
    connections: 4,
    scope: pulls,
    load: getBlob(16 * MIB),
  },
  {
    id: 'P6',
    name: 'blob GET 512 MiB, c=1',
    tier: 'full',
    subjects: ['haven', 'N3', 'D3', 'static', 'H'],
    bytes: 512 * MIB,
    seconds: 2,
    connections: 1,
    scope: pulls,
    load: getBlob(512 * MIB),
  },
  {
    id: 'P7 1 MiB',
    name: 'blob GET 1 MiB over TLS, c=4',
    tier: 'full',
    subjects: ['haven-tls', 'N3-tls', 'static-tls'],
    bytes: MIB,
    seconds: 1.5,
    connections: 4,
    scope: pulls,
    load: getBlob(MIB),
  },
  {
    id: 'P7 16 MiB',
    name: 'blob GET 16 MiB over TLS, c=4',
    tier: 'full',
    subjects: ['haven-tls', 'N3-tls', 'static-tls'],
    bytes: 16 * MIB,
    seconds: 1.5,
    connections: 4,
    scope: pulls,
    load: getBlob(16 * MIB),
  },
  ...([4, 16] as const).map((connections): Row => ({
    id: `P8 c=${connections}`,
    name: `push 16 MiB, c=${connections}`,
    tier: connections === 4 ? 'gate' : 'full',
    subjects: ['haven', 'D3', 'H'],
    bytes: 16 * MIB,
    seconds: 2,
    atMost: 64,
    connections,
    scope: pushes,
    load: () => push(16 * MIB),
  })),
  {
    id: 'P9 1 MiB',
    name: 'push 1 MiB, c=16',
    tier: 'gate',
    subjects: ['haven', 'D3', 'H'],
    seconds: 1.5,
    connections: 16,
    scope: pushes,
    load: () => push(MIB),
  },
  {
    id: 'P9 1 KiB',
    name: 'push 1 KiB, c=16',
    tier: 'gate',
    subjects: ['haven', 'D3', 'H'],
    seconds: 1.5,
    connections: 16,
    scope: pushes,
    load: () => push(KIB),
  },
  {
    id: 'P10',
    name: 'manifest PUT, c=16, a repository each',
    tier: 'gate',
    subjects: ['haven', 'D3', 'H'],
    seconds: 1.5,
    connections: 16,
    scope: { repositories: REPOSITORIES, actions: 'pull,push' },
    load: () => ({ tool: 'client', operation: manifests(REPOSITORIES) }),
  },
  {
    id: 'P11',
    name: 'manifest GET by tag, c=4, while four pushes of 16 MiB run',
    tier: 'gate',
    subjects: ['haven', 'D3'],
    seconds: 2,
    connections: 4,
    scope: pulls,
    load: manifest,
    meanwhile: { connections: 4, scope: pushes, load: push(16 * MIB) },
  },
  {
    id: 'P13',
    name: 'tags/list?n=100 of 10⁵ tags, c=4',
    tier: 'gate',
    subjects: ['haven', 'D3'],
    seconds: 2,
    connections: 4,
    scope: { repositories: [MANY], actions: 'pull' },
    load: () => ({ tool: 'wrk', path: `/v2/${MANY}/tags/list?n=100` }),
  },
  {
    id: 'P19 pull',
    name: 'whole pull: token, manifest, config, six layers of 4 KiB, c=4',
    tier: 'full',
    subjects: ['haven', 'N3', 'H'],
    seconds: 1.5,
    connections: 4,
    scope: 'none',
    load: wholePull(({ image }) => image),
  },
  {
    id: 'P19 push',
    name: 'whole push of the same, c=4',
    tier: 'full',
    subjects: ['haven', 'H'],
    seconds: 2,
    connections: 4,
    scope: 'none',
    load: (subject) => ({
      tool: 'client',
      operation: {
        kind: 'image',
        repositories: [REPOSITORY],
        bytes: 4 * KIB,
        layers: 6,
        token: subject.token?.(pushes) ?? null,
      },
    }),
  },
  {
    id: 'P20',
    name: 'typical pull: token, manifest, config, 20 layers of 2.5 MiB, c=4',
    tier: 'full',
    subjects: ['haven', 'H'],
    seconds: 2,
    connections: 4,
    scope: 'none',
    load: wholePull(({ typical }) => typical!),
  },
]
