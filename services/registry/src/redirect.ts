import type { IncomingMessage } from 'node:http'
import { contextOf } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'

/** Below, a redirect costs the client more than the bytes do. */
const MIN_REDIRECT_BYTES = 64 * 1024
/** What a URL is good for at least; the store's are for up to a quarter of an hour longer, and it is asked at the beginning only. */
const SIGNED_URL_SECONDS = 5 * 60

/** Where the store itself gives a blob to this client; null when the bytes are better sent from here. */
export async function redirectFor(
  req: IncomingMessage,
  storage: BlobStorage,
  { key, sizeBytes }: { key: string; sizeBytes: number },
  contentType: string,
): Promise<string | null> {
  if (!storage.signedUrl || sizeBytes < MIN_REDIRECT_BYTES) return null
  // S3 sends one range at most, and compares If-Range with an ETag of its own.
  const { range, 'if-range': ifRange } = req.headers
  if (ifRange !== undefined || range?.includes(',')) return null
  const location = await storage.signedUrl(key, SIGNED_URL_SECONDS, { contentType })
  return leadsAway(req, new URL(location)) ? location : null
}

/** Whether a client that follows the redirect arrives with the URL's right and no other, and nobody on the way reads it. */
function leadsAway(req: IncomingMessage, store: URL): boolean {
  const { scheme, host } = contextOf(req)
  if (scheme === 'https' && store.protocol === 'http:') return false
  // Clients built on Go's net/http take the token along to the same host on any port and to hosts below it. The store then finds
  // two signatures on one request and answers 400.
  const { hostname } = URL.parse(`http://${host}`) ?? { hostname: '' }
  const staysWithUs = store.hostname === hostname || store.hostname.endsWith(`.${hostname}`)
  return !staysWithUs || req.headers.authorization === undefined
}
