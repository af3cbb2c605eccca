import type { Permission } from '@haven/identity'

/** What can be done to many artifacts at once. */
export type BulkKind = 'delete' | 'label' | 'unlabel' | 'copy' | 'tag' | 'untag'

/** What it takes: where the artifacts are, and where copies go. Asked when an operation starts and again for each artifact. */
export const bulkNeeds: Readonly<Record<BulkKind, { here: Permission; there?: Permission }>> = {
  delete: { here: { resource: 'artifact', action: 'delete' } },
  label: { here: { resource: 'artifact-label', action: 'create' } },
  unlabel: { here: { resource: 'artifact-label', action: 'delete' } },
  copy: { here: { resource: 'artifact', action: 'read' }, there: { resource: 'artifact', action: 'create' } },
  tag: { here: { resource: 'tag', action: 'create' } },
  untag: { here: { resource: 'tag', action: 'delete' } },
}

export const isBulkKind = (text: string): text is BulkKind => Object.hasOwn(bulkNeeds, text)

/** What takes one back, where anything does. */
export const bulkInverse: Readonly<Partial<Record<BulkKind, BulkKind>>> = {
  label: 'unlabel',
  unlabel: 'label',
  tag: 'untag',
  untag: 'tag',
}

/** Changes of one operation that are kept for an undo: one that has made more cannot be taken back. */
export const MAX_KEPT_CHANGES = 100_000
