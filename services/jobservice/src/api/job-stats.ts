import type { Task } from '@haven/queue'

const seconds = (time: Date | null): number => (time ? Math.floor(time.getTime() / 1000) : 0)

/** A task in the shape of Harbor's job service; times are Unix seconds. */
export function presentJob(task: Task): { job: object } {
  return {
    job: {
      id: task.jobId,
      status: task.status,
      name: task.jobType,
      kind: kindOf(task),
      unique: false,
      ref_link: `/api/v1/jobs/${task.jobId}`,
      enqueue_time: seconds(task.createdAt),
      update_time: seconds(task.updatedAt),
      run_at: seconds(task.runAt),
      parameters: task.parameters,
      revision: seconds(task.startedAt ?? task.createdAt),
      ...(task.progress && { check_in: JSON.stringify(task.progress), check_in_at: seconds(task.updatedAt) }),
      ...(task.status === 'Error' && { die_at: seconds(task.endedAt) }),
    },
  }
}

export const kindOf = (task: Pick<Task, 'runAt' | 'createdAt' | 'attempt'>): 'Generic' | 'Scheduled' =>
  task.attempt === 0 && task.runAt.getTime() - task.createdAt.getTime() >= 1000 ? 'Scheduled' : 'Generic'
