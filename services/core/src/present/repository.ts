import type { RepositoryDetails } from '@haven/artifacts'
import type { HarborSchemas } from '@haven/proto'
import { time } from './time.ts'

export const presentRepository = (repository: RepositoryDetails): HarborSchemas['Repository'] => ({
  id: repository.id,
  project_id: repository.projectId,
  name: repository.name,
  ...(repository.description !== '' && { description: repository.description }),
  artifact_count: repository.artifactCount,
  pull_count: repository.pullCount,
  creation_time: time(repository.createdAt),
  update_time: time(repository.updatedAt),
})
