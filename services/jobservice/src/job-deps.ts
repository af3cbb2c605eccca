import type { DescMessage } from '@bufbuild/protobuf'
import type { RecordDeps } from '@haven/artifacts'
import type { GcDeps } from '@haven/artifacts/gc'
import type { Database } from '@haven/db'
import type { Authorities } from '@haven/identity'
import type { ProjectDirectory } from '@haven/projects'
import { defineJob as define, type JobDefinition, type JobSpec } from '@haven/queue'
import type { RegistryControlClient } from './registry-control.ts'

/** What jobs work with. */
export type JobDeps = {
  readonly db: Database
  readonly projects: Pick<ProjectDirectory, 'byId'>
  /** For what is done in somebody's name. */
  readonly authorities: Pick<Authorities, 'of'>
  readonly artifacts: RecordDeps
  readonly gc: GcDeps
  readonly registryControl: RegistryControlClient
  readonly uploadExpirySeconds: number
}

export type Job = JobDefinition<JobDeps>

/** `defineJob` of @haven/queue for the jobs of this service. */
export const defineJob = <Schema extends DescMessage>(schema: Schema, spec: JobSpec<Schema, JobDeps>): Job =>
  define<Schema, JobDeps>(schema, spec)
