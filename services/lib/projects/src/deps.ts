import type { Database, Prisma } from '@haven/db'
import type { ProjectDirectory } from './directory.ts'

export type ProjectDeps = {
  db: Database
  /** Told at once of changes that this process makes, so that its next request sees them. */
  directory: ProjectDirectory
}

export type Transaction = Prisma.TransactionClient
