import { problems } from '@haven/errors'
import { topics } from '../events/streamed.ts'
import type { Handlers } from '../handler.ts'

export const eventHandlers: Handlers = {
  streamEvents({ query, headers, caller }, { events }) {
    const { principal, sessionId } = caller
    if (principal.kind !== 'user' && principal.kind !== 'robot') throw problems.forbidden({})
    const address = caller.source.address ?? ''
    const wanted = query.topics === undefined ? null : wantedTopics(query.topics)
    const lastEventId = positionOf(headers['Last-Event-ID'])
    return {
      status: 200,
      write: (res) => events.listen(res, { principal, sessionId, address, topics: wanted, lastEventId }),
    }
  },
}

/** @throws badRequest for a topic that never comes. */
function wantedTopics(given: readonly string[]): ReadonlySet<string> {
  return new Set(
    given.flatMap((name) => {
      const meant = topics.filter((topic) => topic === name || `${topic.split('.', 1)[0]}.*` === name)
      if (meant.length === 0) throw problems.badRequest({ message: `there is no topic ${name}` })
      return meant
    }),
  )
}

/** What is no number of ours answers like one that is forgotten. */
function positionOf(header: string | undefined): bigint | null {
  if (header === undefined || header === '') return null
  return /^\d{1,18}$/.test(header) ? BigInt(header) : -1n
}
