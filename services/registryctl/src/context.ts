import type { GcDeps } from '@haven/artifacts/gc'
import type { Database } from '@haven/db'
import type { ProjectDirectory } from '@haven/projects'
import type { Logger } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'

/** What handlers work with. */
export type RegistryctlContext = {
  db: Database
  storage: BlobStorage
  projects: Pick<ProjectDirectory, 'byId' | 'byName'>
  gc: GcDeps
  log: Logger
  trashSeconds: number
}
