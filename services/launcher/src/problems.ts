/** A start that failed for a reason a person can act on. Each reason has its own exit code, so that scripts can tell them apart. */
export class LaunchProblem extends Error {
  readonly exitCode: number

  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options)
    this.exitCode = exitCode
  }
}

/** sysexits(3) where one fits; the rest are ours. `haven --help` prints this table. */
export const exitCodes = {
  usage: 64,
  softwareFault: 70,
  wrongSetting: 78,
  portTaken: 80,
  noRedis: 81,
  databaseUnreachable: 82,
  newerDatabase: 83,
  wrongEncryptionKey: 84,
  storeUnusable: 85,
  diskFull: 86,
  clockOff: 87,
  alreadyRunning: 88,
  notHealthyInTime: 89,
} as const
