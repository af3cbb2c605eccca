import { bulkInverse, MAX_KEPT_CHANGES, type BulkKind } from '@haven/artifacts'
import type { HavenSchemas } from '@haven/proto'
import { isFinal, type Execution, type JsonObject } from '@haven/queue'
import { time } from './time.ts'

export type OperationFacts = {
  kind: BulkKind
  dryRun: boolean
  /** Its name; absent for a search through several. */
  project?: string | undefined
  retries?: number
  undoes?: number
  total: number
  unknown: number
}
/** What the job saves after each artifact. */
type Cursor = {
  done: number
  failed: number
  codes: Record<string, number>
  effects?: number
  sample?: string[]
}
type Shown = HavenSchemas['Operation']

/** An operation on many artifacts. Before its job saves anything, names of nothing have failed. */
export function presentOperation(execution: Execution, cursor: JsonObject | null): Shown {
  const facts = execution.parameters as OperationFacts
  const { kind, dryRun, project, retries, undoes, total, unknown } = facts
  const begun = {
    done: unknown,
    failed: unknown,
    codes: unknown === 0 ? {} : { 'NOT_FOUND gone': unknown },
    effects: 0,
  }
  const state = (cursor as Cursor | null) ?? begun
  const { done, failed, codes, sample }: Cursor = state
  const whyNot = whyNoUndo(facts, execution, state)
  return {
    id: execution.id,
    kind,
    dryRun,
    ...(project !== undefined && { project }),
    ...(retries !== undefined && { retries }),
    ...(undoes !== undefined && { undoes }),
    state: execution.status,
    ...(execution.statusMessage !== '' && { message: execution.statusMessage }),
    total,
    done,
    failed,
    failures: Object.entries(codes).map(([counted, count]) => {
      const [code = '', reason = 'other'] = counted.split(' ')
      return { code, reason: reason as Shown['failures'][number]['reason'], count }
    }),
    ...(dryRun && { sample: sample ?? [] }),
    undo: whyNot === null ? { possible: true } : { possible: false, reason: whyNot },
    createdAt: time(execution.createdAt),
    ...(execution.startedAt && { startedAt: time(execution.startedAt) }),
    ...(execution.endedAt && { endedAt: time(execution.endedAt) }),
  }
}

function whyNoUndo({ kind, dryRun }: OperationFacts, { status }: Execution, { effects }: Cursor): string | null {
  if (dryRun) return 'a dry run does nothing'
  if (kind === 'delete') return 'what was deleted cannot be brought back'
  if (!bulkInverse[kind]) return 'copies stay until they are deleted where they are'
  if (!isFinal(status)) return 'it is not over yet'
  if (effects === undefined || effects > MAX_KEPT_CHANGES) return 'what it has changed was not kept'
  return effects === 0 ? 'it has changed nothing' : null
}
