export { Announcements, type AnnouncedTable } from './announcements.ts'
export { Database, isUniqueViolation, openDatabase, type DatabaseOptions, type Db } from './database.ts'
export {
  conditionsToSql,
  escapeLike,
  fieldOf,
  isStorableTime,
  listKept,
  listKeys,
  listRows,
  orderOf,
  orderToSql,
  pageToSql,
  type Condition,
  type Field,
  type Fields,
  type Order,
  type Page,
  type Scalar,
  type Sort,
} from './list-query.ts'
export { keyOfList } from './kept-lists.ts'
export { migrate, migrations, missingMigrations, NewerSchema, type Migration } from './migrate.ts'
export { Prisma, type PrismaClient } from './gen/prisma/client.ts'
export { ofAll, statement, statementOfRows, UNSYNCED, type Statement } from './statement.ts'
export type { Sql } from './sql.ts'
export type { Tx } from './transaction.ts'
export { cacheUses, TwoGenerations } from './two-generations.ts'
