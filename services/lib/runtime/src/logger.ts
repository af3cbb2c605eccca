import pino, { type Logger } from 'pino'
import { cut, loggable } from './redaction.ts'
import { openLogDestination, type LogDestination } from './log-destination.ts'

export type { Logger } from 'pino'
export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * JSON lines of one service (threats.md R15): one line is one line, secrets are hidden by key and by value, values are cut at
 * 2 KiB. An error goes under `err`.
 */
export function createLogger(options: {
  readonly service: string
  readonly level?: LogLevel
  readonly destination?: LogDestination
}): Logger {
  return pino(
    {
      level: options.level ?? 'info',
      base: { service: options.service },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
        bindings: (bindings) => loggable(bindings) as Record<string, unknown>,
        log: (fields) => loggable(fields) as Record<string, unknown>,
      },
      // Everything is made loggable above; pino's own would run before and print what it should not.
      serializers: { err: (error: unknown) => error },
      hooks: {
        logMethod(args, method) {
          method.apply(this, args.map((arg) => (typeof arg === 'string' ? cut(arg) : arg)) as typeof args)
        },
      },
    },
    options.destination ?? openLogDestination(),
  )
}
