import type { BulkKind } from '@haven/artifacts'
import type { HavenSchemas } from '@haven/proto'
import type { Execution, JsonObject } from '@haven/queue'
import { time } from './time.ts'

type Parameters = { kind: BulkKind; dryRun: boolean; project: string; total: number; unknown: number }
/** What the job saves after each artifact. */
type Cursor = { done: number; failed: number; codes: Record<string, number> }

/** An operation on many artifacts. Before its job saves anything, names of nothing have failed. */
export function presentOperation(execution: Execution, cursor: JsonObject | null): HavenSchemas['Operation'] {
  const { kind, dryRun, project, total, unknown } = execution.parameters as Parameters
  const begun = { done: unknown, failed: unknown, codes: unknown === 0 ? {} : { NOT_FOUND: unknown } }
  const { done, failed, codes } = (cursor as Cursor | null) ?? begun
  return {
    id: execution.id,
    kind,
    dryRun,
    project,
    state: execution.status,
    ...(execution.statusMessage !== '' && { message: execution.statusMessage }),
    total,
    done,
    failed,
    failures: Object.entries(codes).map(([code, count]) => ({ code, count })),
    createdAt: time(execution.createdAt),
    ...(execution.startedAt && { startedAt: time(execution.startedAt) }),
    ...(execution.endedAt && { endedAt: time(execution.endedAt) }),
  }
}
