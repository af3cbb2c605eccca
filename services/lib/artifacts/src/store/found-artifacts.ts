import { Prisma, type Database } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import { from } from './artifact-conditions.ts'
import { listed } from './full-rows.ts'
import { rarestSets } from './search-start.ts'
import { selected, type SelectedArtifact } from './selected-artifacts.ts'
import { searchChecks, searchSets, searchToSql, type Labels } from './search-sql.ts'

type Found = { among: readonly { id: number; name: string }[]; terms: readonly SearchTerm[]; labels: Labels }

const scopeOf = ({ among, labels }: Found) => ({ among, labels, ofTags: false })
const found = ({ among }: Found, terms: readonly Prisma.Sql[]) =>
  Prisma.join(
    [
      Prisma.sql`r.deleted_at is null and r.project_id = any(${among.map(({ id }) => id)}::int[]) and ${listed}`,
      ...terms,
    ],
    ' and ',
  )

/**
 * Artifacts that a search finds and that were there at some time, the newest first, below an id. Two statements; one when no term is found by an
 * index.
 */
export async function foundArtifacts(
  db: Pick<Database, 'prisma'>,
  search: Found,
  { pushedUntil, below, limit }: { pushedUntil: Date; below: number | null; limit: number },
): Promise<SelectedArtifact[]> {
  const scope = scopeOf(search)
  const isBelow = (id: Prisma.Sql) => (below === null ? Prisma.sql`true` : Prisma.sql`${id} < ${BigInt(below)}`)
  const [rarest] = await rarestSets(db, searchSets(search.terms, scope))
  // Its ids in order first, and looked at one by one until there are enough.
  const [source, id, terms] = rarest
    ? [
        Prisma.sql`(select distinct x.id from (${rarest}) x (id) where ${isBelow(Prisma.sql`x.id`)} order by x.id desc offset 0) k
          cross join lateral (select n.* from artifacts.manifests n where n.id = k.id and n.deleted_at is null offset 0) m
          cross join lateral (select q.* from artifacts.repositories q where q.id = m.repository_id offset 0) r`,
        Prisma.sql`k.id`,
        searchChecks(search.terms, scope),
      ]
    : [from, Prisma.sql`m.id`, searchToSql(search.terms, scope)]
  return db.prisma.$queryRaw<SelectedArtifact[]>`
    select ${selected} from ${source}
     where ${found(search, terms)} and m.pushed_at <= ${pushedUntil} and ${isBelow(id)}
     order by ${id} desc limit ${limit}`
}

/** How many a search finds. */
export async function countFound({ prisma }: Pick<Database, 'prisma'>, search: Found): Promise<number> {
  const [count] = await prisma.$queryRaw<[{ total: bigint }]>`
    select count(*) as total from ${from} where ${found(search, searchToSql(search.terms, scopeOf(search)))}`
  return Number(count.total)
}
