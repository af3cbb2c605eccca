import type { Job } from '../job-deps.ts'
import garbageCollection from './garbage-collection.ts'

/** Every file of this folder. A test compares the list with the folder, so a new job that is not here fails the build. */
export const jobs: readonly Job[] = [garbageCollection]
