export { addTag } from './add-tag.ts'
export { appendToUpload, type Chunk } from './append-to-upload.ts'
export { bulkInverse, bulkNeeds, isBulkKind, MAX_KEPT_CHANGES, type BulkKind } from './bulk-kinds.ts'
export { countRepositories } from './count-repositories.ts'
export { deleteBlob, getBlob, headBlob, headBlobForPush, knownBlob, reportUnreadable } from './blobs.ts'
export { contentSize } from './content-size.ts'
export { copyArtifact } from './copy-artifact.ts'
export { deleteManifest, deleteTag } from './delete-manifest.ts'
export {
  artifactDeps,
  type ArtifactDeps,
  type ArtifactPolicies,
  type ArtifactSettings,
  type RecordDeps,
  type Verdict,
} from './deps.ts'
export { faultPoint, interceptFaultPoint, type FaultPoint } from './fault-point.ts'
export { detachLabel } from './detach-label.ts'
export { finishUpload } from './finish-upload.ts'
export { findManifest, getManifest, headManifest, type FoundManifest, type ServedManifest } from './get-manifest.ts'
export {
  listArtifactRows,
  listTagRows,
  searchArtifacts,
  type FoundRow,
  type FullRow,
  type FullTagRow,
} from './full-rows.ts'
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
export { labelArtifact, unlabelArtifact } from './label-artifact.ts'
export { describeContent, type ArtifactContent } from './describe-content.ts'
export { attributesOf, ownIconOf } from './learn-facts.ts'
export { findArtifact, listArtifacts } from './list-artifacts.ts'
export { listReferrers, referrersIndex, type ReferrersQuery } from './list-referrers.ts'
export { listRepositories } from './list-repositories.ts'
export { listTagDetails, listTagHistory, listTags } from './list-tags.ts'
export { mountBlob, mountSources } from './mount-blob.ts'
export { judgeDeletions, previewDeletion, type DeletionPreview } from './preview-deletion.ts'
export { projectPolicies } from './project-policies.ts'
export { PullCounter } from './pull-counter.ts'
export { PullLog } from './pull-log.ts'
export { putManifest, type ManifestUpload, type PushedManifest } from './put-manifest.ts'
export { RecentAnswers } from './recent-answers.ts'
export { harborAdditionsOf, iconNameOf, readAddition } from './read-addition.ts'
export { readIcon } from './read-icon.ts'
export { deleteRepository } from './repositories/delete-repository.ts'
export { updateRepository } from './repositories/update-repository.ts'
export { parseSearch, type SearchTerm } from './search-terms.ts'
export { resolveSelector, selectedArtifacts, type Resolved, type Selection, type Selector } from './select-artifacts.ts'
export { searchRepositories } from './search-repositories.ts'
export {
  countRepositoriesIn,
  projectContents,
  storeBacklog,
  storedBytes,
  type ArtifactFigures,
  type Backlog,
  type RepositoryFigures,
} from './statistics.ts'
export type { Accessory, ArtifactParts, ArtifactRow } from './store/artifact-columns.ts'
export { accessoryRows as listAccessories, tagRows as listTagsOf } from './store/attached-rows.ts'
export type { SelectedArtifact } from './store/selected-artifacts.ts'
export { hasRepositories } from './store/repositories.ts'
export {
  repositoryRow as findRepositoryDetails,
  repositoryRows as listRepositoryDetails,
  type RepositoryDetails,
} from './store/repository-rows.ts'
export type { Rubbish } from './store/blobs.ts'
export { forgetChanges } from './store/changes.ts'
export { foldListings } from './store/listings.ts'
export type { Referrer } from './store/referrers.ts'
export { cancelUpload, expireUploads, startUpload, uploadStatus } from './uploads.ts'
export type { TagOrder } from './store/full-rows.ts'
export { MAX_COUNTED, type Keyset, type RowKey, type RowPage } from './store/row-pages.ts'
export type { ContentSize, HeldSize } from './store/sizes.ts'
export { tagsOfManifests, type RecordedTagChange } from './store/tags.ts'
