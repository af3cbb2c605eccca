export { freshDatabaseUrl, testDatabase, type TestDatabase } from './database.ts'
export { testRedis } from './redis.ts'
