import { problems } from '@haven/errors'

/** What a process of ours exits with, by reason; each start-up problem's own code is in the catalogue of @haven/errors. */
export const exitCodes = {
  ok: 0,
  bug: problems.internal.kind.exitCode,
  settings: problems.settingsInvalid.kind.exitCode,
  portInUse: problems.portInUse.kind.exitCode,
  databaseUnreachable: problems.databaseUnreachable.kind.exitCode,
  databaseTooNew: problems.databaseTooNew.kind.exitCode,
  redisUnreachable: problems.redisUnreachable.kind.exitCode,
  storageUnreachable: problems.storageUnreachable.kind.exitCode,
  diskFull: problems.diskFull.kind.exitCode,
  clockSkewed: problems.clockSkewed.kind.exitCode,
  keyUnreadable: problems.keyUnreadable.kind.exitCode,
  alreadyRunning: problems.alreadyRunning.kind.exitCode,
  programMissing: problems.programMissing.kind.exitCode,
} as const
