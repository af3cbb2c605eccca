import type { Permission } from '@haven/identity'

/** What can be done to many artifacts at once. */
export type BulkKind = 'delete' | 'label' | 'unlabel' | 'copy'

/** What it takes: where the artifacts are, and where copies go. Asked when an operation starts and again for each artifact. */
export const bulkNeeds: Readonly<Record<BulkKind, { here: Permission; there?: Permission }>> = {
  delete: { here: { resource: 'artifact', action: 'delete' } },
  label: { here: { resource: 'artifact-label', action: 'create' } },
  unlabel: { here: { resource: 'artifact-label', action: 'delete' } },
  copy: { here: { resource: 'artifact', action: 'read' }, there: { resource: 'artifact', action: 'create' } },
}

export const isBulkKind = (text: string): text is BulkKind => Object.hasOwn(bulkNeeds, text)
