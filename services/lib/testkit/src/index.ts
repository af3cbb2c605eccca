export { freshDatabaseUrl, testDatabase, type TestDatabase } from './database.ts'
export { freePort } from '@haven/embedded'
export { ADMIN_PASSWORD, launcher, runHaven, startHaven, type HavenInstallation, type HavenOptions } from './haven.ts'
export { testRedis } from './redis.ts'
