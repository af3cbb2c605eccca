import { problems } from '@haven/errors'
import type { ArtifactDeps } from './deps.ts'

/** @throws problems.readOnly while the installation is in read-only mode. */
export async function requireWritable({ policies }: ArtifactDeps): Promise<void> {
  if (await policies.readOnly?.()) throw problems.readOnly()
}
