import { problems } from '@haven/errors'
import type { RecordDeps } from './deps.ts'

/** @throws problems.readOnly while the installation is in read-only mode. */
export async function requireWritable({ policies }: RecordDeps): Promise<void> {
  if (await policies.readOnly?.()) throw problems.readOnly()
}
