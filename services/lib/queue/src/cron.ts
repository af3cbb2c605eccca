import { problems } from '@haven/errors'
import { CronExpressionParser } from 'cron-parser'

/** Harbor's fixed types, and their cron expressions (harbor-jobs-and-data.md §6). */
export const CRON_TYPES = { Hourly: '0 0 * * * *', Daily: '0 0 0 * * *', Weekly: '0 0 0 * * 0' } as const
export type CronType = keyof typeof CRON_TYPES | 'Custom'

/**
 * Checks a cron expression of six fields (second minute hour day-of-month month day-of-week; UTC) as Harbor's API does: no
 * descriptors such as `@daily`, and seconds must be 0. @throws problems.badRequest
 */
export function checkCron(cron: string): void {
  if (cron.trim() === '') throw problems.badRequest({ message: 'empty cron string is invalid' })
  const fields = cron.trim().split(/\s+/)
  if (fields.length !== 6) {
    throw problems.badRequest({
      message: `invalid cron string ${JSON.stringify(cron)}: expected 6 fields (second minute hour day month weekday), found ${fields.length}`,
    })
  }
  try {
    CronExpressionParser.parse(cron.trim(), { tz: 'UTC' })
  } catch (cause) {
    const reason = (cause as Error).message
    throw problems.badRequest({ message: `invalid cron string ${JSON.stringify(cron)}: ${reason}` }, { cause })
  }
  if (fields[0] !== '0') {
    throw problems.badRequest({ message: `the 1st field (indicating Seconds of time) of the cron setting must be 0` })
  }
}

/** The first time after `after` that the expression names, in UTC. */
export function nextRun(cron: string, after: Date): Date {
  return CronExpressionParser.parse(cron, { currentDate: after, tz: 'UTC' }).next().toDate()
}
