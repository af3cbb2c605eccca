import type { Label } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'
import { time } from './time.ts'

/** What is empty or 0 is left out, as in Harbor. */
export const presentLabel = (label: Label): HarborSchemas['Label'] => ({
  id: label.id,
  ...(label.name !== '' && { name: label.name }),
  ...(label.description !== '' && { description: label.description }),
  ...(label.color !== '' && { color: label.color }),
  scope: label.projectId === 0 ? 'g' : 'p',
  ...(label.projectId !== 0 && { project_id: label.projectId }),
  creation_time: time(label.createdAt),
  update_time: time(label.updatedAt),
})
