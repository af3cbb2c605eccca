export type { OfferedChallenge } from './challenges.ts'
export { registry, type Credential, type Endpoint, type RegistryClient, type RegistryOptions } from './registry.ts'
export type { BlobStream, BlobUpload, PushedBlob } from './blobs.ts'
export type { ManifestHead, RemoteManifest } from './manifests.ts'
