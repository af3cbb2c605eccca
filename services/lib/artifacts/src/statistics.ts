import { statement, type Sql } from '@haven/db'

// `in (select unnest(…))` is looked up in a hash table; `= any(…)` of a parameter would go through the whole array for each row.
const counts = statement<{ public: number; private: number }>(
  'repositories by visibility',
  `select count(*) filter (where project_id in (select unnest($1::int[])))::int as public,
          count(*) filter (where project_id in (select unnest($2::int[])))::int as private
     from artifacts.repositories
    where deleted_at is null and first_pushed_at is not null`,
)

/** How many listed repositories there are in these projects. */
export const countRepositoriesIn = async (
  sql: Sql,
  projectIds: { public: readonly number[]; private: readonly number[] },
): Promise<{ public: number; private: number }> =>
  (await sql.one(counts, [projectIds.public, projectIds.private])) ?? { public: 0, private: 0 }

const bytes = statement<{ bytes: number }>(
  'blobs stored bytes',
  'select coalesce(sum(size_bytes), 0)::float8 as bytes from artifacts.blobs',
)

/** Bytes of all blobs, each once however many repositories hold it. */
export const storedBytes = async (sql: Sql): Promise<number> => (await sql.one(bytes, []))?.bytes ?? 0
