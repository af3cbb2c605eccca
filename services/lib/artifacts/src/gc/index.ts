export { gcDeps, type GcDeps, type GcRun } from './deps.ts'
export { dueTrash, eraseTrash, makeDue, type EraseFailure, type EraseOptions, type Erasure } from './erase-trash.ts'
export { estimateGarbage, type Garbage } from './estimate-garbage.ts'
export { explainDigest, projectsHolding, type DigestExplanation, type DigestReason } from './explain-digest.ts'
export { forgetBlobs, type ForgottenBlob } from './forget-blobs.ts'
export { buryUntagged, purgeNow, purgeTombstones, removedBy, type PurgedManifest } from './purge-manifests.ts'
export { sweepLeftovers } from './sweep-leftovers.ts'
export { unlinkBlobs } from './unlink-blobs.ts'
export {
  repairStore,
  storeStatistics,
  verifyStore,
  type Finding,
  type FindingKind,
  type RepairAction,
  type Repaired,
  type StoreStatistics,
  type Verified,
  type VerifyOptions,
} from './verify-store.ts'
