import type { Handlers } from '../handler.ts'
import { healthHandlers } from './health.ts'
import { projectHandlers, projectMetadataHandlers } from './project.ts'
import { systemHandlers } from './system.ts'

/** Every operation that is served. What is missing here is listed in test/api/not-yet.txt. */
export const handlers: Handlers = {
  ...healthHandlers,
  ...systemHandlers,
  ...projectHandlers,
  ...projectMetadataHandlers,
}
