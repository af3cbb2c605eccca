import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect'
import {
  dueTrash,
  eraseTrash,
  repairStore,
  storeStatistics,
  sweepLeftovers,
  verifyStore,
  type Erasure,
  type Finding,
  type FindingKind,
  type RepairAction,
} from '@haven/artifacts/gc'
import {
  EraseResponseSchema,
  FindingKind as FindingCode,
  RegistryControl,
  RepairAction as ActionCode,
  type EraseRequest,
  type Finding as FindingMessage,
  type FindingSchema,
  type RepairRequest,
  type VerifyRequest,
} from '@haven/proto/rpc'
import type { RegistryctlContext } from './context.ts'

/** Objects erased between two answers of a stream. */
const ERASE_STEP = 200
const MAX_WORKERS = 10
/** Longer than a probe of the store takes. */
const LEFTOVER_AGE_MS = 10_000

const findingCodes: Record<FindingKind, FindingCode> = {
  missing: FindingCode.MISSING,
  corrupt: FindingCode.CORRUPT,
  orphan: FindingCode.ORPHAN,
  size: FindingCode.SIZE_MISMATCH,
}
const actionCodes: Record<RepairAction, ActionCode> = {
  none: ActionCode.NONE,
  relocated: ActionCode.RELOCATED,
  dropped: ActionCode.LOCATION_DROPPED,
  trashed: ActionCode.TRASHED,
}

/** The calls of proto/haven/rpc/v1/registry_control.proto, over the use cases of @haven/artifacts/gc. */
export function registryControl(router: ConnectRouter, context: RegistryctlContext): void {
  router.service(RegistryControl, {
    erase: (request, { signal }) => erase(context, request, signal),
    verify: (request, { signal }) => verify(context, request, signal),
    repair: (request, { signal }) => repair(context, request, signal),
    async statistics() {
      const { store, objects, objectBytes, trash, trashBytes } = await storeStatistics(context.db, context.storage.name)
      return {
        stores: [
          {
            store,
            objects: BigInt(objects),
            objectBytes: BigInt(objectBytes),
            trash: BigInt(trash),
            trashBytes: BigInt(trashBytes),
          },
        ],
      }
    },
  })
}

async function* erase({ db, storage, log }: RegistryctlContext, request: EraseRequest, signal: AbortSignal) {
  const workers = request.workers || 1
  if (workers > MAX_WORKERS) throw new ConnectError(`workers must be at most ${MAX_WORKERS}`, Code.InvalidArgument)
  const sum = { erased: 0, erasedBytes: 0, failed: 0 }
  const answer = async ({ failures, held }: Pick<Erasure, 'failures' | 'held'>) => {
    const [due, { trash }] = await Promise.all([dueTrash(db, storage.name), storeStatistics(db, storage.name)])
    return create(EraseResponseSchema, {
      erased: BigInt(sum.erased),
      erasedBytes: BigInt(sum.erasedBytes),
      failed: BigInt(sum.failed),
      skipped: BigInt(trash - due.count),
      remaining: BigInt(due.count),
      held,
      failures: failures.map(({ key, reason }) => ({ key, reason })),
    })
  }
  if (request.dryRun) {
    yield await answer({ failures: [], held: false })
    return
  }
  const limit = request.limit || Infinity
  const keys = request.keys.length > 0 ? request.keys : undefined
  for (let done = 0; done < limit;) {
    const step = Math.min(ERASE_STEP, limit - done)
    const part = await eraseTrash(db, storage, { limit: step, workers, signal, ...(keys && { keys }) })
    sum.erased += part.erased
    sum.erasedBytes += part.erasedBytes
    sum.failed += part.failed
    for (const { key, reason } of part.failures) log.warn({ key, reason }, 'an object could not be erased')
    yield await answer(part)
    if (part.held) log.info({ remaining: part.remaining }, 'the trash waits for the end of a backup')
    if (part.erased + part.failed === 0) break
    done += part.erased + part.failed
  }
  if (!keys && !request.limit) await sweep({ db, storage, log }, signal)
  log.info({ execution: String(request.execution), ...sum }, 'erased trash')
}

/** A failure is no reason to call the erasure failed: some accounts may delete from a bucket and not list its uploads. */
async function sweep({ db, storage, log }: Pick<RegistryctlContext, 'db' | 'storage' | 'log'>, signal: AbortSignal) {
  try {
    const { swept, failures } = await sweepLeftovers(db, storage, { minAgeMs: LEFTOVER_AGE_MS, signal })
    for (const { key, reason } of failures) log.warn({ key, reason }, 'what an upload left could not be removed')
    if (swept > 0) log.info({ swept }, 'removed what uploads left that have ended')
  } catch (err) {
    signal.throwIfAborted()
    log.warn({ err }, 'the store could not be searched for what uploads left')
  }
}

async function* verify(context: RegistryctlContext, request: VerifyRequest, signal: AbortSignal) {
  const { db, storage } = context
  if (request.store !== '' && request.store !== storage.name) {
    throw new ConnectError(`${request.store} is not the store that is open here`, Code.NotFound)
  }
  const options = {
    deep: request.deep,
    signal,
    ...(request.digests.length > 0 && { digests: request.digests }),
    ...(request.maxBytesPerSecond > 0n && { maxBytesPerSecond: Number(request.maxBytesPerSecond) }),
  }
  for await (const { finding, objects, objectBytes } of verifyStore(db, storage, options)) {
    yield {
      objects: BigInt(objects),
      objectBytes: BigInt(objectBytes),
      ...(finding && { finding: await toMessage(context, finding) }),
    }
  }
}

async function repair(
  { db, storage, log, trashSeconds }: RegistryctlContext,
  request: RepairRequest,
  signal: AbortSignal,
) {
  const { dryRun } = request
  const repaired = await repairStore(db, storage, request.findings.map(fromMessage), { dryRun, trashSeconds, signal })
  for (const { finding, action, reason } of repaired) {
    if (!dryRun) log.info({ digest: finding.digest, key: finding.key, kind: finding.kind, action, reason }, 'repaired')
  }
  return {
    repaired: repaired.map(({ action, reason }, n) => ({
      finding: request.findings[n]!,
      action: actionCodes[action],
      reason,
    })),
  }
}

async function toMessage(
  { projects }: RegistryctlContext,
  finding: Finding,
): Promise<MessageInitShape<typeof FindingSchema>> {
  const repositories: string[] = []
  for (const { projectId, path } of finding.repositories) {
    repositories.push(`${(await projects.byId(projectId))?.name ?? `#${projectId}`}/${path}`)
  }
  return {
    kind: findingCodes[finding.kind],
    store: finding.store,
    key: finding.key,
    digest: finding.digest ?? '',
    expectedBytes: BigInt(finding.expectedBytes ?? 0),
    actualBytes: BigInt(finding.actualBytes ?? 0),
    repositories,
  }
}

function fromMessage(message: FindingMessage): Finding {
  const kind = (Object.keys(findingCodes) as FindingKind[]).find((each) => findingCodes[each] === message.kind)
  if (!kind) throw new ConnectError('a finding without a kind cannot be repaired', Code.InvalidArgument)
  return {
    kind,
    store: message.store,
    key: message.key,
    digest: message.digest || null,
    expectedBytes: Number(message.expectedBytes),
    actualBytes: Number(message.actualBytes),
    repositories: [],
  }
}
