export type {
  AppendOptions,
  BlobStorage,
  ByteRange,
  ByteSource,
  Intake,
  RemoveResult,
  StoredObject,
  UnfinishedUpload,
  UploadState,
} from './blob-storage.ts'
export { FileStorage } from './drivers/files.ts'
export { MemoryStorage } from './drivers/memory.ts'
export { ObjectCorrupt, ObjectMissing, ObjectTruncated, SizeMismatch, UploadLost } from './failures.ts'
export { newObjectKey } from './object-key.ts'
export type { ObjectKey } from './object-key.ts'
export { readStorageConfig, storageConfig } from './config.ts'
export type { StorageConfig } from './config.ts'
export { openStorage } from './open-storage.ts'
export { beginSum, type RunningSum } from './running-sum.ts'
export { headFirst } from './streams.ts'
