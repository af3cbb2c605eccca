import type { ContentSize, DeletionPreview, RecordedTagChange } from '@haven/artifacts'
import type { HavenSchemas } from '@haven/proto'
import { time } from './time.ts'

/** @param named whether the reader may know who it was. */
export const presentTagChange = (
  { from, to, actor, door, reason, requestId, changedAt, restorableUntil }: RecordedTagChange,
  named: boolean,
): HavenSchemas['TagChange'] => ({
  at: time(changedAt),
  ...(from !== null && { from }),
  ...(to !== null && { to }),
  door: door as HavenSchemas['Door'],
  ...(named && { by: actor }),
  ...(reason !== null && { because: reason }),
  ...(named && requestId && { requestId }),
  ...(restorableUntil && { restorableUntil: time(restorableUntil) }),
})

/** With what is left of it when the unique part is gone. */
export const presentSize = <Size extends ContentSize>(size: Size) => ({
  ...size,
  sharedBytes: size.totalBytes - size.uniqueBytes,
})

export const presentDeletion = ({
  goes,
  stays,
  blockers,
  totalBytes,
  freedBytes,
  truncated,
}: DeletionPreview): HavenSchemas['DeletionPreview'] => ({
  allowed: blockers.length === 0,
  blockers,
  goes: goes.map(({ totalBytes: sizeBytes, ...going }) => ({ ...going, sizeBytes })),
  stays: stays.map(({ tags, index, subject, ...staying }) => ({
    ...staying,
    ...(tags.length > 0 && { tags }),
    ...(index !== null && { index }),
    ...(subject !== null && { subject }),
  })),
  totalBytes,
  freedBytes,
  sharedBytes: totalBytes - freedBytes,
  truncated,
})
