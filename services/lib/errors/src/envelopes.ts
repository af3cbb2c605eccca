import type { Facts, Problem } from './problem.ts'

/** The body of an error on `/v2` (OCI Distribution 1.1, "Error Codes"): one entry for each thing that is wrong. */
export function ociEnvelope(problem: Problem) {
  return {
    errors: problem.entries.map(({ message, facts }) => {
      const detail = detailOf(facts)
      return { code: problem.kind.oci, message, ...(detail && { detail }) }
    }),
  }
}

/** The body of an error on `/api`, `/c` and `/service` (harbor-api.md §1). */
export function harborEnvelope(problem: Problem) {
  return { errors: problem.entries.map(({ message }) => ({ code: problem.kind.harbor, message })) }
}

function detailOf(facts: Facts): Record<string, unknown> | undefined {
  const { message: _, ...rest } = facts
  return Object.keys(rest).length === 0 ? undefined : rest
}
