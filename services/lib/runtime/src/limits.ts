import type { IncomingMessage } from 'node:http'
import type { LingerLimits } from './linger.ts'

/** What a port asks of its clients (threats.md §5). */
export interface Limits {
  /** Request line and headers together; beyond: 431. */
  readonly maxHeaderBytes: number
  readonly maxHeaders: number
  /** From the first byte of a connection or request to the end of its headers; beyond: 408. */
  readonly headersTimeoutMs: number
  /** For the whole body of a request that is no upload; beyond: 408. */
  readonly bodyTimeoutMs: number
  /** An upload must bring this much in each window; below: 408. */
  readonly uploadRate: { readonly bytesPerSecond: number; readonly windowMs: number }
  /** What is read and dropped of a body that was answered before its end, so that the client sees the answer. */
  readonly linger: LingerLimits
  /** A reader that takes nothing of a waiting answer for this long is cut off. */
  readonly stalledReaderMs: number
  /** Idle time between requests. Longer than the idle time of whoever keeps connections to us. */
  readonly keepAliveMs: number
  readonly maxConnections: number
  /** For one address; beyond: 503. Only where the address is the client's, that is at the door. */
  readonly maxConnectionsPerAddress: number
  /** Whether the body of a request may take as long as it keeps its rate. */
  readonly isUpload: (req: IncomingMessage) => boolean
}

export const defaultLimits: Limits = {
  maxHeaderBytes: 16 * 1024,
  maxHeaders: 100,
  headersTimeoutMs: 20_000,
  bodyTimeoutMs: 60_000,
  uploadRate: { bytesPerSecond: 1024, windowMs: 60_000 },
  linger: { bytes: 32 * 1024 * 1024, ms: 5_000 },
  stalledReaderMs: 60_000,
  keepAliveMs: 75_000,
  maxConnections: 8192,
  maxConnectionsPerAddress: Infinity,
  isUpload: ({ url = '' }) => url.startsWith('/v2/') && url.includes('/blobs/uploads/'),
}
