import { Prisma, type Database } from '@haven/db'
import { insert, placesOf } from './list-places.ts'

/**
 * A list of artifacts, or of repositories by one artifact of each, whose rows change only by what the triggers note (listing_changes, listing_log),
 * and by pulls.
 */
export type RememberedList = {
  /** Tells it apart from other lists. */
  name: string
  /** A condition on repositories `r`: those that it is made of. */
  scope: Prisma.Sql
  /** What its keys are ids of. */
  keys: 'manifests' | 'repositories'
  /** Whether a pull changes it. */
  byPulls: boolean
  /** To find it whole may take longer than a statement may otherwise. */
  isLong: boolean
  /** `select … as key` of all of it, in its order. */
  whole: Prisma.Sql
  /** The same of those that have one of these keys. */
  among: (keys: readonly number[]) => Prisma.Sql
}

type Db = Pick<Database, 'prisma' | 'lists'>
type Writer = Pick<Database, 'lists'> & { readonly prisma: Pick<Database['prisma'], '$queryRaw' | '$executeRaw'> }
type Prismatic = { readonly $queryRaw: Database['prisma']['$queryRaw'] }
/** `at`: not later than the snapshot. */
type Version = { epoch: string; snapshot: string; at: string }

/** Ids that are larger, or longer lists, are not remembered: 16 MiB of a process is what all lists of a generation may take. */
const MAX_INT = 2 ** 31 - 1
const MAX_KEYS = 4_000_000
/** So many that were touched are put in their places; beyond, the list is found anew. */
const MAX_TOUCHED = 500
/** So many lines are read for them, of whatever repositories. */
const MAX_LINES = 20_000

/**
 * The keys of all of a list in their order, as it is now. It is found whole once; from then on who asks is told what was touched since, and only
 * that is looked at again: one short statement where nothing was, and a few by the keys of what was. Null for a list that is too long.
 */
export async function rememberedKeys(db: Db, list: RememberedList): Promise<Int32Array | null> {
  const known = db.lists.last(list.name)
  if (!known) return find(db, list)
  if (known.list.keys === null) return null
  const since = JSON.parse(known.version) as Version
  const now = await changesSince(db.prisma, list, since)
  if (now.touched === null) return find(db, list)
  if (now.touched.length === 0) return keep(db, list, now.version, known.list.keys)
  return (await bringUpToDate(db, list, since, known.list.keys)) ?? find(db, list)
}

/** Whoever comes while a list is being found waits for it and asks what was touched meanwhile, instead of looking at all of it, too. */
async function find(db: Db, list: RememberedList): Promise<Int32Array | null> {
  let mine = false
  const keys = await db.lists.once(list.name, () => {
    mine = true
    return list.isLong ? db.lists.inTurn(() => findPatiently(db, list)) : findWhole(db, list)
  })
  return mine ? keys : rememberedKeys(db, list)
}

const PATIENCE_MS = 60_000

// Postgres takes a million artifacts of one repository for as few as others have, and would look for something else for each of them; the newest of
// a repository are looked for one by one.
const findPatiently = (db: Db, list: RememberedList) =>
  db.prisma.$transaction(
    async (tx) => {
      await tx.$queryRaw`
        select set_config('statement_timeout', ${String(PATIENCE_MS)}, true), set_config('work_mem', '64MB', true),
               set_config(${list.keys === 'manifests' ? 'enable_nestloop' : 'enable_memoize'}, 'off', true)`
      return findWhole({ prisma: tx, lists: db.lists }, list)
    },
    { timeout: 2 * PATIENCE_MS },
  )

function keep({ lists }: Pick<Db, 'lists'>, { name }: RememberedList, version: Version, keys: Int32Array): Int32Array {
  lists.keep(name, JSON.stringify(version), { total: keys.length, keys })
  return keys
}

// After a restore into another database the same transactions are others.
const epoch = Prisma.sql`
  (select e.salt || '-' || d.oid from artifacts.listing_epoch e, pg_database d where d.datname = current_database())`

async function findWhole(db: Writer, list: RememberedList): Promise<Int32Array | null> {
  const { prisma, lists } = db
  // Four bytes a key, as hexadecimal: the driver would take numbers one at a time, and makes an array of numbers of bytes.
  const [found] = await prisma.$queryRaw<
    [{ epoch: string | null; snapshot: string; at: string; total: number; most: number; keys: string | null }]
  >`
    select ${epoch} as epoch, pg_current_snapshot()::text as snapshot, now()::text as at, count(*)::float8 as total, coalesce(max(f.key), 0)::float8 as most,
           encode(string_agg(int4send(least(f.key, ${MAX_INT})::int4), ''), 'hex') as keys
      from (${list.whole}) f`
  if (found.epoch === null) {
    // Nobody has remembered a list since the server began.
    await prisma.$executeRaw`insert into artifacts.listing_epoch default values on conflict do nothing`
    return findWhole(db, list)
  }
  const version = { epoch: found.epoch, snapshot: found.snapshot, at: found.at }
  if (found.total > MAX_KEYS || found.most > MAX_INT) {
    lists.keep(list.name, JSON.stringify(version), { total: found.total, keys: null })
    return null
  }
  const keys = new Int32Array(found.total)
  new Uint8Array(keys.buffer).set(Buffer.from(found.keys ?? '', 'hex').swap32()) // the network's order of bytes
  return keep(db, list, version, keys)
}

/** The whole number of a transaction of which a row that was written lately has the lower half; of one that was restored, 0. */
const whole = (half: Prisma.Sql) => Prisma.sql`(
  select greatest(x.next - x.next % x.wrap + x.half - case when x.half >= x.next % x.wrap then x.wrap else 0 end, 0)::text::xid8
    from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next, ${half}::text::bigint as half, 4294967296 as wrap) x)`

/** A pull says when its transaction began, and ends it within this (pull-counter.ts: three statements). */
const PULL_WRITTEN_WITHIN = Prisma.sql`interval '60 seconds'`

/** What of a list may have changed in transactions that a snapshot did not see. Null: nobody knows, or it is too much. */
async function changesSince(
  sql: Prismatic,
  { scope, keys, byPulls }: RememberedList,
  { epoch: known, snapshot, at }: Version,
): Promise<{ version: Version; touched: number[] | null }> {
  const unseen = Prisma.sql`
    c.transaction_id >= pg_snapshot_xmin(${snapshot}::text::pg_snapshot)::text::bigint
    and not pg_visible_in_snapshot(c.transaction_id::text::xid8, ${snapshot}::text::pg_snapshot)`
  const lines = (table: string) => Prisma.sql`
    (select c.repository_id, c.manifest_id, c.digest from artifacts.${Prisma.raw(table)} c where ${unseen} limit ${MAX_LINES + 1})`
  const since = Prisma.sql`${at}::text::timestamptz - ${PULL_WRITTEN_WITHIN}`
  const pulled = byPulls
    ? Prisma.sql`
      union all
      (select m.repository_id, m.id, null
         from artifacts.last_pulls p, lateral (select m.repository_id, m.id from artifacts.manifests m where m.id = p.manifest_id offset 0) m
        where p.pulled_day >= ((${since}) at time zone 'UTC')::date and p.pulled_at >= ${since}
          and not pg_visible_in_snapshot(${whole(Prisma.sql`p.xmin`)}, ${snapshot}::text::pg_snapshot) limit ${MAX_LINES + 1})`
    : Prisma.empty
  // `offset 0`: of each line by an index, since Postgres cannot know how few there are.
  const touched =
    keys === 'repositories'
      ? Prisma.sql`select distinct t.repository_id as key from touched t`
      : Prisma.sql`
          select t.manifest_id as key from touched t where t.manifest_id is not null
          union
          select m.id from touched t, lateral (
            select m.id from artifacts.manifests m
             where m.repository_id = t.repository_id and m.digest = t.digest offset 0) m
          union
          select m.id from touched t, lateral (
            select m.id from artifacts.manifests m
             where m.repository_id = t.repository_id and t.manifest_id is null and t.digest is null limit ${MAX_TOUCHED + 1}) m`
  // Where a repository was that is elsewhere now, nobody knows: all of it is looked at for every list.
  const [row] = await sql.$queryRaw<
    [{ epoch: string | null; snapshot: string; at: string; forgotten: boolean; lines: bigint; touched: number[] }]
  >`
    with changed as materialized (${lines('listing_changes')} union all ${lines('listing_log')} ${pulled}),
    touched as materialized (
      select distinct c.repository_id, c.manifest_id, c.digest
        from changed c
       where (c.manifest_id is null and c.digest is null)
          or coalesce((select ${scope} from artifacts.repositories r where r.id = c.repository_id), true))
    select ${epoch} as epoch, pg_current_snapshot()::text as snapshot, now()::text as at, (select count(*) from changed) as lines,
           coalesce((select e.forgotten_until > pg_snapshot_xmin(${snapshot}::text::pg_snapshot)::text::bigint from artifacts.listing_epoch e), true)
             as forgotten,
           array(select f.key::float8 from (${touched} limit ${MAX_TOUCHED + 1}) f) as touched`
  const unknown = row.epoch !== known || row.forgotten || row.lines > MAX_LINES || row.touched.length > MAX_TOUCHED
  return {
    version: { epoch: row.epoch ?? '', snapshot: row.snapshot, at: row.at },
    touched: unknown ? null : row.touched,
  }
}

/** Puts what was touched where it belongs now. In one snapshot, or places would be looked for between rows that move. */
const bringUpToDate = (db: Db, list: RememberedList, since: Version, keys: Int32Array): Promise<Int32Array | null> =>
  db.prisma.$transaction(
    async (tx) => {
      const { version, touched } = await changesSince(tx, list, since)
      if (touched === null) return null
      const inOrder = async (among: readonly number[]) =>
        (await tx.$queryRaw<{ key: number }[]>`select f.key::float8 as key from (${list.among(among)}) f`).map(
          ({ key }) => key,
        )
      const entering = touched.length === 0 ? [] : await inOrder(touched)
      const gone = new Set(touched)
      const places = await placesOf(keys, gone, entering, inOrder)
      return places && keep(db, list, version, insert(keys, gone, entering, places))
    },
    { isolationLevel: Prisma.TransactionIsolationLevel.RepeatableRead },
  )
