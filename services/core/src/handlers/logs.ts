import type { HavenSchemas } from '@haven/proto'
import type { Handlers } from '../handler.ts'
import type { KeptLine } from '../log-search.ts'

export const logHandlers: Handlers = {
  async searchLogs({ query }, { searchLogs }) {
    const { limit = 100, requestId, ...terms } = query
    const found = await searchLogs({ ...terms, ...(requestId !== undefined && { request: requestId }), limit })
    return { status: 200, pieces: pageOf(found) }
  },
}

async function* pageOf(found: AsyncGenerator<KeptLine, { truncated: boolean }>): AsyncGenerator<string> {
  try {
    let separator = '{"lines":['
    let step = await found.next()
    for (; !step.done; step = await found.next()) {
      yield separator + JSON.stringify(presentLine(step.value))
      separator = ','
    }
    yield `${separator === ',' ? '' : separator}],"truncated":${step.value.truncated}}`
  } finally {
    await found.return({ truncated: false })
  }
}

function presentLine({ time, service, level, msg, request, ...fields }: KeptLine): HavenSchemas['LogLine'] {
  return {
    time: String(time),
    service: String(service),
    level: level as HavenSchemas['LogLine']['level'],
    message: String(msg),
    ...(typeof request === 'string' && { requestId: request }),
    ...(Object.keys(fields).length > 0 && { fields }),
  }
}
