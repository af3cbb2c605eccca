import { tracing } from '@haven/telemetry'
import pino, { type Logger } from 'pino'
import { knowDestination } from './access-log.ts'
import { cut, loggable } from './redaction.ts'
import { openLogDestination, type LogDestination } from './log-destination.ts'

export type { Logger } from 'pino'
export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * JSON lines of one service (threats.md R15): one line is one line, secrets are hidden by key and by value, values are cut at
 * 2 KiB. An error goes under `err`. While traces are sent each line names the one that it belongs to.
 */
export function createLogger(options: {
  readonly service: string
  readonly level?: LogLevel
  readonly destination?: LogDestination
}): Logger {
  const destination = options.destination ?? openLogDestination()
  const traces = tracing()
  const logger = pino(
    {
      level: options.level ?? 'info',
      base: { service: options.service },
      ...(traces && { mixin: () => traces.ids() ?? {} }),
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: {
        level: (label) => ({ level: label }),
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
    destination,
  )
  // Its lines have no place for a trace.
  if (traces === null) knowDestination(logger, destination, options.service)
  // pino passes the fields of a child through no formatter. Children of children inherit this.
  const makeChild: Logger['child'] = logger.child
  logger.child = function (this: Logger, bindings, childOptions) {
    return Reflect.apply(makeChild, this, [loggable(bindings), childOptions])
  } as Logger['child']
  return logger
}
