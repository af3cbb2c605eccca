import { failure, reasonOf, type Look } from './finding.ts'
import type { Ground } from './ground.ts'

const WAIT_MS = 3_000

/** The log collector, where the environment says that there is one. */
export async function lookAtLogs({ env, shared }: Ground): Promise<Look[]> {
  const { LOG_COLLECTOR_URL: url } = env
  if (!url || !URL.canParse(url)) return []
  const at = 'log collector'
  try {
    const answer = await fetch(new URL('/v1/services', url), {
      headers: { Authorization: `Bearer ${shared.LOG_COLLECTOR_SECRET ?? ''}` },
      signal: AbortSignal.timeout(WAIT_MS),
    })
    await answer.body?.cancel()
    if (answer.ok) return [{ at, said: `answers at ${url}`, findings: [] }]
    const finding =
      answer.status === 401 || answer.status === 403
        ? failure(
            'logs.secret',
            'the log collector refuses LOG_COLLECTOR_SECRET',
            'give it and all services the same one',
          )
        : failure(
            'logs.unwell',
            `${url} answered ${answer.status}`,
            'see that LOG_COLLECTOR_URL is where the log collector listens',
          )
    return [{ at, said: `refuses us at ${url}`, findings: [finding] }]
  } catch (error) {
    const what = `the log collector does not answer at ${url}: ${reasonOf(error)}`
    const todo = 'start it, or correct LOG_COLLECTOR_URL; until then each service writes its lines to its own output'
    return [{ at, said: 'does not answer', findings: [failure('logs.unreachable', what, todo)] }]
  }
}
