import { Prisma, type Database } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import { from, selected, type SelectedArtifact } from './artifact-rows.ts'
import { listed } from './full-rows.ts'
import { searchToSql, type Labels } from './search-sql.ts'

type Found = { among: readonly { id: number; name: string }[]; terms: readonly SearchTerm[]; labels: Labels }

const found = ({ among, terms, labels }: Found) =>
  Prisma.join(
    [
      Prisma.sql`r.deleted_at is null and r.project_id = any(${among.map(({ id }) => id)}::int[]) and ${listed}`,
      ...searchToSql(terms, { among, labels, ofTags: false }),
    ],
    ' and ',
  )

/** Artifacts that a search finds and that were there at some time, the newest first, below an id. */
export const foundArtifacts = (
  { prisma }: Pick<Database, 'prisma'>,
  search: Found,
  { pushedUntil, below, limit }: { pushedUntil: Date; below: number | null; limit: number },
): Promise<SelectedArtifact[]> => prisma.$queryRaw<SelectedArtifact[]>`
  select ${selected} from ${from}
   where ${found(search)} and m.pushed_at <= ${pushedUntil}
     ${below === null ? Prisma.empty : Prisma.sql`and m.id < ${BigInt(below)}`}
   order by m.id desc limit ${limit}`

/** How many a search finds. */
export async function countFound({ prisma }: Pick<Database, 'prisma'>, search: Found): Promise<number> {
  const [count] = await prisma.$queryRaw<[{ total: bigint }]>`
    select count(*) as total from ${from} where ${found(search)}`
  return Number(count.total)
}
