import { tracingChannel } from 'node:diagnostics_channel'
import type { OpenSpan, Tracing } from './tracing.ts'

type Asked = { command?: string; error?: unknown }

/** Spans of the commands that a request or a job sends to Redis, as ioredis tells of them (its channel `ioredis:command`). Values are left out. */
export function followRedis(tracing: Tracing): void {
  const open = new WeakMap<Asked, OpenSpan>()
  const failures = new WeakMap<Asked, string>()
  tracingChannel<unknown, Asked>('ioredis:command').subscribe({
    start(asked) {
      const command = String(asked.command).toUpperCase()
      const span = tracing.openInside({
        name: `redis ${command}`,
        kind: 'client',
        attributes: { 'db.system.name': 'redis', 'db.operation.name': command },
      })
      if (span) open.set(asked, span)
    },
    end: () => undefined,
    asyncStart: () => undefined,
    error(asked) {
      failures.set(asked, asked.error instanceof Error ? asked.error.message : String(asked.error))
    },
    asyncEnd(asked) {
      const failure = failures.get(asked)
      open.get(asked)?.end({}, failure === undefined ? {} : { failure })
    },
  })
}
