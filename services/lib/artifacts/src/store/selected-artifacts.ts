import { Prisma, type Condition, type Database } from '@haven/db'
import type { Reference } from '@haven/oci'
import { allShown, from, oneByOne, shown, type Place } from './artifact-conditions.ts'

/** What an operation needs to know of an artifact. */
export type SelectedArtifact = {
  id: number
  projectId: number
  repositoryId: number
  path: string
  digest: string
  mediaType: string
  artifactType: string | null
  subjectDigest: string | null
  pushedAt: Date
}

export const selected = Prisma.sql`
  m.id::float8 as id, r.project_id as "projectId", m.repository_id as "repositoryId", r.path, m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType",
  m.subject_digest as "subjectDigest", m.pushed_at as "pushedAt"`

/** Artifacts that match and were there at some time, the newest first, below an id. */
export const matchingArtifacts = (
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  { conditions, pushedUntil, below, limit }: Matching & { below: number | null; limit: number },
): Promise<SelectedArtifact[]> => prisma.$queryRaw<SelectedArtifact[]>`
  select ${selected} from ${shown(place, conditions, oneByOne)} and m.pushed_at <= ${pushedUntil}
     ${below === null ? Prisma.empty : Prisma.sql`and m.id < ${BigInt(below)}`}
   order by m.id desc limit ${limit}`

type Matching = { conditions: readonly Condition[]; pushedUntil: Date }

/** How many match. @throws badRequest for what cannot be asked. */
export async function countMatching(
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  conditions: readonly Condition[],
): Promise<number> {
  const [count] = await prisma.$queryRaw<[{ total: bigint }]>`
    select count(*) as total from ${allShown(place, conditions)}`
  return Number(count.total)
}

/** Those of the artifacts of some projects that are still there, by their ids. */
export const artifactsById = (
  { prisma }: Pick<Database, 'prisma'>,
  projectIds: readonly number[],
  ids: readonly number[],
): Promise<SelectedArtifact[]> => prisma.$queryRaw<SelectedArtifact[]>`
  select ${selected} from ${from} where m.id = any(${ids.map(BigInt)}) and r.project_id = any(${[...projectIds]}::int[]) and r.deleted_at is null`

/** Ids of artifacts that are named, in the order of the names; null for one that is not there. */
export async function idsOfNamed(
  { prisma }: Pick<Database, 'prisma'>,
  projectId: number,
  named: readonly { path: string; reference: Reference }[],
): Promise<(number | null)[]> {
  const rows = await prisma.$queryRaw<{ id: number | null }[]>`
    select coalesce(d.id, t.manifest_id)::float8 as id
      from unnest(${named.map(({ path }) => path)}::text[], ${named.map(({ reference }) => reference.digest ?? null)}::text[],
                  ${named.map(({ reference }) => reference.tag ?? null)}::text[]) with ordinality as n(path, digest, tag, place)
      left join artifacts.repositories r on r.project_id = ${projectId} and r.path = n.path and r.deleted_at is null
      left join artifacts.manifests d on d.repository_id = r.id and d.digest = n.digest and d.deleted_at is null
      left join artifacts.tags t on t.repository_id = r.id and t.name = n.tag
     order by n.place`
  return rows.map(({ id }) => id)
}
