export type { ServerProcess, ServerStart } from './child.ts'
export { freePort } from './ports.ts'
export {
  postgresPrograms,
  postgresUrl,
  startPostgres,
  type EmbeddedPostgres,
  type PostgresOptions,
} from './postgres.ts'
export { NoRedis, startRedis, type EmbeddedRedis, type RedisOptions } from './redis.ts'
