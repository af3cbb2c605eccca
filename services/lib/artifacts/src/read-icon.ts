import { statement } from '@haven/db'
import type { Digest } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import { readAll } from './processors/bounded.ts'

/** As Harbor's. */
export const MAX_ICON_BYTES = 1024 * 1024

// By the digest alone, as Harbor's API asks for it: of whichever artifact says that this is its icon.
const locate = statement<{ key: string; sizeBytes: number }>(
  'icons locate',
  `select l.key, b.size_bytes::float8 as "sizeBytes"
     from artifacts.manifests m
     join artifacts.blobs b on b.digest = m.facts ->> 'icon' and b.damaged_at is null
     join artifacts.blob_links k on k.repository_id = m.repository_id and k.blob_id = b.id
     join artifacts.blob_locations l on l.blob_id = b.id and l.store = $2
    where m.facts ->> 'icon' = $1 and m.deleted_at is null limit 1`,
)

/** A picture that some artifact shows as its icon, as it was pushed: PNG, JPEG or GIF by its first bytes. Null when no artifact does. */
export async function readIcon(
  { db, storage }: Pick<ArtifactDeps, 'db' | 'storage'>,
  digest: Digest,
): Promise<Buffer | null> {
  const found = await db.writes.one(locate, [digest, storage.name])
  if (!found || found.sizeBytes > MAX_ICON_BYTES) return null
  const bytes = await readAll(storage.read(found.key), MAX_ICON_BYTES)
  return bytes && isPicture(bytes) ? bytes : null
}

const signatures = [
  Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
  Buffer.from([0xff, 0xd8, 0xff]),
  Buffer.from('GIF87a'),
  Buffer.from('GIF89a'),
]

/** Whether the bytes begin as a PNG, JPEG or GIF does. */
export const isPicture = (bytes: Buffer): boolean =>
  signatures.some((signature) => bytes.subarray(0, signature.length).equals(signature))
