import {
  conditionsToSql,
  listRows,
  orderOf,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { accessoryType, type Accessory } from './artifact-columns.ts'

const tagFields: Fields = {
  id: { column: Prisma.sql`t.id`, type: 'number' },
  name: { column: Prisma.sql`t.name`, type: 'text' },
  version: { column: Prisma.sql`t.version_key`, type: 'text' },
  repository_id: { column: Prisma.sql`t.repository_id`, type: 'number' },
  artifact_id: { column: Prisma.sql`t.manifest_id`, type: 'number' },
  push_time: { column: Prisma.sql`t.pushed_at`, type: 'time' },
  pull_time: { column: Prisma.sql`t.pulled_at`, type: 'time' },
}

export type ListQuery = { conditions?: readonly Condition[]; sort?: readonly Sort[]; page: Page }
export type TagRow = { id: number; name: string; pushedAt: Date; pulledAt: Date | null }

/** A page of the tags of an artifact, the one pushed last first, and how many there are. */
export async function tagRows(
  { prisma }: Pick<Database, 'prisma'>,
  manifestId: number,
  query: ListQuery,
): Promise<{ total: number; rows: TagRow[] }> {
  return listRows<TagRow>(prisma, {
    columns: Prisma.sql`t.id::float8 as id, t.name, t.pushed_at as "pushedAt", t.pulled_at as "pulledAt"`,
    from: Prisma.sql`artifacts.tags t`,
    where: [Prisma.sql`t.manifest_id = ${BigInt(manifestId)}`, ...conditionsToSql(query.conditions ?? [], tagFields)],
    order: orderOf(
      query.sort ?? [],
      tagFields,
      [{ column: Prisma.sql`t.pushed_at`, descending: true }],
      Prisma.sql`t.id`,
    ),
    page: query.page,
  })
}

const accessoryFields: Fields = {
  id: { column: Prisma.sql`x.id`, type: 'number' },
  artifact_id: { column: Prisma.sql`x.id`, type: 'number' },
  type: { column: Prisma.sql`x.type`, type: 'text' },
  digest: { column: Prisma.sql`x.digest`, type: 'text' },
  size: { column: Prisma.sql`x.total_bytes`, type: 'number' },
  subject_artifact_id: { column: Prisma.sql`x.subject_id`, type: 'number' },
  subject_artifact_digest: { column: Prisma.sql`x.subject_digest`, type: 'text' },
  creation_time: { column: Prisma.sql`x.pushed_at`, type: 'time' },
}

/** A page of what hangs on an artifact, the oldest first, and how much there is. */
export async function accessoryRows(
  { prisma }: Pick<Database, 'prisma'>,
  subject: { id: number; repositoryId: number; digest: string },
  query: ListQuery,
): Promise<{ total: number; rows: Accessory[] }> {
  const source = Prisma.sql`(
    select a.id, a.digest, ${accessoryType('a')} as type, a.total_bytes, a.pushed_at, a.subject_digest, ${BigInt(subject.id)}::bigint as subject_id
      from artifacts.manifests a
     where a.repository_id = ${subject.repositoryId} and a.subject_digest = ${subject.digest} and a.deleted_at is null) x`
  const { total, rows } = await listRows<{ accessory: Accessory }>(prisma, {
    columns: Prisma.sql`
      jsonb_build_object('id', x.id, 'digest', x.digest, 'type', x.type, 'sizeBytes', x.total_bytes, 'pushedAt', x.pushed_at,
                         'subjectDigest', x.subject_digest, 'subjectId', x.subject_id) as accessory`,
    from: source,
    where: [Prisma.sql`true`, ...conditionsToSql(query.conditions ?? [], accessoryFields)],
    order: orderOf(
      query.sort ?? [],
      accessoryFields,
      [{ column: Prisma.sql`x.pushed_at`, descending: false }],
      Prisma.sql`x.id`,
    ),
    page: query.page,
  })
  return { total, rows: rows.map(({ accessory }) => accessory) }
}
