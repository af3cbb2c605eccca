import type { RecordedTagChange } from '@haven/artifacts'
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
