export { startServer, type ServerProcess, type ServerStart } from './child.ts'
export { freePort } from './ports.ts'
export {
  postgresPrograms,
  postgresUrl,
  startPostgres,
  type EmbeddedPostgres,
  type PostgresOptions,
} from './postgres.ts'
export { NoRedis, redisBinary, startRedis, type EmbeddedRedis, type RedisOptions } from './redis.ts'
