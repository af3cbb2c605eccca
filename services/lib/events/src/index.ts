export { emit, type Transaction } from './emit.ts'
export type { Event, EventHeader, EventPayloads, EventType, RecordedEvent } from './event.ts'
