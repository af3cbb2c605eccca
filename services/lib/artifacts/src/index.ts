export { appendToUpload, type Chunk } from './append-to-upload.ts'
export { countRepositories } from './count-repositories.ts'
export { deleteBlob, getBlob, headBlobForPush, reportUnreadable } from './blobs.ts'
export { deleteManifest, deleteTag } from './delete-manifest.ts'
export { artifactDeps, type ArtifactDeps, type ArtifactPolicies, type ArtifactSettings, type Verdict } from './deps.ts'
export { faultPoint, interceptFaultPoint, type FaultPoint } from './fault-point.ts'
export { detachLabel } from './detach-label.ts'
export { finishUpload } from './finish-upload.ts'
export { getManifest, headManifest, type ServedManifest } from './get-manifest.ts'
export {
  grant,
  nameOf,
  type DeleteGrant,
  type Door,
  type Grant,
  type PullGrant,
  type PushGrant,
  type Right,
} from './grants.ts'
export { countReferrers, listReferrers, referrersIndex, type ReferrersQuery } from './list-referrers.ts'
export { listRepositories } from './list-repositories.ts'
export { listTagDetails, listTags } from './list-tags.ts'
export { mountBlob, mountSources } from './mount-blob.ts'
export { projectPolicies } from './project-policies.ts'
export { PullCounter } from './pull-counter.ts'
export { PullLog } from './pull-log.ts'
export { putManifest, type ManifestUpload, type PushedManifest } from './put-manifest.ts'
export { searchRepositories } from './search-repositories.ts'
export { countRepositoriesIn, storedBytes } from './statistics.ts'
export { hasRepositories } from './store/repositories.ts'
export { trashObject, type Rubbish } from './store/blobs.ts'
export type { Referrer } from './store/referrers.ts'
export { cancelUpload, expireUploads, startUpload, uploadStatus } from './uploads.ts'
