export { emit, type EventMessage, type EventSource, type Transaction } from './emit.ts'
