import type { Problem } from '@haven/errors'

/** How Harbor's job service writes its errors (harbor-jobs-and-data.md §4.1). */
export const jobserviceEnvelope = (problem: Problem): object => ({
  code: problem.status,
  message: problem.message,
  details: problem.kind.name,
})
