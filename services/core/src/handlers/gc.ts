import { problems } from '@haven/errors'
import { GarbageCollectionSchema } from '@haven/proto/jobs'
import { taskOf } from '@haven/queue'
import type { Handlers } from '../handler.ts'
import { systemJob } from './system-job.ts'

const VENDOR = 'GARBAGE_COLLECTION'
/** A run whose worker died goes on where it was, so trying again is safe (architecture.md, "GC while serving"). */
const JOB = { type: VENDOR, attempts: 3 }
const MAX_WORKERS = 10

const gc = systemJob({
  vendorType: VENDOR,
  noun: 'garbage collection',
  path: '/api/v2.0/system/gc',
  shown: [
    'delete_untagged',
    'delete_tag',
    'dry_run',
    'workers',
    'time_window',
    'freed_space',
    'purged_blobs',
    'purged_manifests',
  ],

  readParameters(given) {
    const flag = (name: string): boolean => {
      const value = given[name] ?? false
      if (typeof value !== 'boolean') throw problems.badRequest({ message: `parameters.${name} must be true or false` })
      return value
    }
    const workers = given.workers ?? 1
    if (typeof workers !== 'number' || !Number.isInteger(workers) || workers < 1 || workers > MAX_WORKERS) {
      throw problems.badRequest({ message: `parameters.workers must be a number from 1 to ${MAX_WORKERS}` })
    }
    return {
      delete_untagged: flag('delete_untagged'),
      delete_tag: flag('delete_tag'),
      dry_run: flag('dry_run'),
      workers,
    }
  },

  taskOf: (asked) =>
    taskOf(GarbageCollectionSchema, JOB, {
      deleteUntagged: asked.delete_untagged,
      deleteTag: asked.delete_tag,
      dryRun: asked.dry_run,
      workers: asked.workers,
    }),
})

export const gcHandlers: Handlers = {
  getGCHistory: gc.history,
  getGC: ({ path }, deps) => gc.get(deps, path.gc_id),
  stopGC: ({ path }, deps) => gc.stop(deps, path.gc_id),
  getGCLog: ({ path }, deps) => gc.log(deps, path.gc_id),
  getGCSchedule: (_call, deps) => gc.schedule(deps),
  createGCSchedule: gc.createSchedule,
  updateGCSchedule: gc.updateSchedule,
}
