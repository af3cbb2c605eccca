import { accessLog, type AccessLine, type Logger, type Metrics } from '@haven/runtime'

/**
 * Counts an answer of the door and writes its line of the access log, whichever way it went.
 * @param startedAt when the request was there, by `performance.now()`
 */
export type TellAnswer = (startedAt: number, line: Omit<AccessLine, 'ms'>) => void

export function tellAnswer({ log, metrics }: { log: Logger; metrics: Metrics }): TellAnswer {
  const write = accessLog(log)
  return (startedAt, line) => {
    const ms = performance.now() - startedAt
    const { method, to, status } = line
    metrics.observe({ service: 'proxy', method, route: to, status, seconds: ms / 1000 })
    write({ ...line, ms: Math.round(ms * 1000) / 1000 })
  }
}
