import { AsyncLocalStorage } from 'node:async_hooks'
import * as http from 'node:http'
import * as https from 'node:https'
import { Client, type ClientOptions } from 'minio'
import type { ByteRange } from '../../blob-storage.ts'
import { release } from '../../streams.ts'
import { codeOf, failureOf, retrying, S3Failure, type RetryPolicy } from './retry.ts'

export interface S3Options {
  /** `https://host[:port]` */
  readonly endpoint: string
  /** The same store as clients reach it; default: `endpoint`. Signatures hold for one host only. */
  readonly publicEndpoint?: string
  readonly region: string
  readonly bucket: string
  readonly accessKey: string
  readonly secretKey: string
  /** Put before every key; ends in `/` unless empty. */
  readonly prefix?: string
  readonly pathStyle?: boolean
  /** A request on which no byte moves for so long has failed. */
  readonly idleTimeoutMs?: number
  readonly retry?: RetryPolicy
}

export interface PutTarget {
  readonly upload?: { readonly id: string; readonly partNumber: number }
  /** Refuse to replace an object: answers 412. */
  readonly ifAbsent?: boolean
}

const URL_SECONDS = 900
const READ_SECONDS = 300
const QUARTER_HOUR_MS = 900_000
/** A signature is 300 bytes and costs 100 µs. */
const MAX_SIGNATURES = 20_000
/** A store that takes a part more slowly than this is as good as silent. */
const SLOWEST_BYTES_PER_MS = 64
// A store that copies parts together says nothing until it is done (versitygw: 30 s for 3 GiB on a busy disk). Asking again meanwhile
// would join the same parts twice at once.
const SLOWEST_JOINED_BYTES_PER_MS = 16 * 1024

/**
 * One bucket. Control calls go through `minio`; bytes through signed requests of `node:http`, which costs a fifth of the CPU of
 * `putObject` and `getObject` (0.9 against 5–8 s/GB). Every call but `get` repeats itself on failures that may pass.
 */
export class S3Client {
  readonly #minio: Client
  readonly #public: Client
  readonly #signed = { quarter: 0, urls: new Map<string, string>() }
  readonly #transport: typeof http | typeof https
  readonly #agent: http.Agent
  readonly #options: S3Options
  readonly #idleTimeoutMs: number
  /** How long requests of `minio` that begin in this call may be silent, where it is longer than others. */
  readonly #patienceMs = new AsyncLocalStorage<number>()
  readonly retry: RetryPolicy

  constructor(options: S3Options) {
    const url = new URL(options.endpoint)
    const secure = url.protocol === 'https:'
    this.#options = options
    this.#idleTimeoutMs = options.idleTimeoutMs ?? 30_000
    this.retry = options.retry ?? { attempts: 6, baseDelayMs: 100, maxDelayMs: 5000 }
    this.#transport = secure ? https : http
    this.#agent = new this.#transport.Agent({ keepAlive: true, maxFreeSockets: 64, timeout: 60_000 })
    this.#public = new Client(account(options.publicEndpoint ?? options.endpoint, options))
    this.#minio = new Client({
      ...account(options.endpoint, options),
      transportAgent: this.#agent,
      transport: {
        request: (...given: Parameters<typeof http.request>) => this.#limited(this.#transport.request(...given)),
      } as typeof http,
      // It repeats without jitter and reports to the console; `retrying` does it here.
      retryOptions: { disableRetry: true },
    })
  }

  close(): void {
    this.#agent.destroy()
  }

  /** Creates the bucket when it is missing. */
  async ensureBucket(): Promise<void> {
    const { bucket, region } = this.#options
    await retrying(this.retry, async () => {
      if (await this.#minio.bucketExists(bucket)) return
      await this.#minio.makeBucket(bucket, region).catch((error: unknown) => {
        // Another replica was quicker.
        if (!['BucketAlreadyOwnedByYou', 'BucketAlreadyExists'].includes(codeOf(error))) throw error
      })
    })
  }

  /** @throws when the bucket is gone or not this one: a HEAD's 404 does not tell it from a missing object. */
  async requireBucket(): Promise<void> {
    const { bucket } = this.#options
    if (!(await retrying(this.retry, () => this.#minio.bucketExists(bucket)))) {
      throw new S3Failure(404, 'NoSuchBucket', `there is no bucket ${bucket}`)
    }
  }

  /** Stores the buffers under a name or as a part. `untouched` tells that nothing can still be reading them. */
  async put(
    name: string,
    buffers: readonly Uint8Array[],
    sizeBytes: number,
    { upload, ifAbsent }: PutTarget,
    signal?: AbortSignal,
  ): Promise<{ etag: string; untouched: boolean }> {
    const query = upload && { uploadId: upload.id, partNumber: String(upload.partNumber) }
    const headers: http.OutgoingHttpHeaders = { 'Content-Length': sizeBytes, ...(ifAbsent && { 'If-None-Match': '*' }) }
    return retrying(
      this.retry,
      async (attempt) => {
        const url = await this.#minio.presignedUrl('PUT', this.#options.bucket, name, URL_SECONDS, query)
        const request = this.#request('PUT', url, headers, signal)
        const slowestMs = this.#idleTimeoutMs + sizeBytes / SLOWEST_BYTES_PER_MS
        const deadline = setTimeout(
          () => request.destroy(timedOut(`the store took longer than ${slowestMs} ms`)),
          slowestMs,
        )
        const response = await answerTo(request, () => sendAll(request, buffers)).finally(() => clearTimeout(deadline))
        const body = await textOf(response)
        // An answer in the middle of the body is a refusal; the rest stays unsent.
        if (!request.writableFinished) request.destroy()
        if (response.statusCode !== 200) throw failureIn(response, body)
        const etag = unquote(String(response.headers.etag ?? ''))
        if (etag === '') throw new S3Failure(200, 'InternalError', 'an answer without an ETag')
        return { etag, untouched: attempt === 1 && request.writableFinished }
      },
      { signal },
    )
  }

  /** The answer to one GET, its body unread. Rejects with a 404 or 416 `S3Failure`, or one that may pass. */
  async get(name: string, range: ByteRange | null, signal?: AbortSignal): Promise<http.IncomingMessage> {
    const headers = range ? { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` } : {}
    const request = this.#request('GET', await this.#signedRead(this.#minio, name, READ_SECONDS, {}), headers, signal)
    const response = await answerTo(request, () => request.end())
    if (response.statusCode === (range ? 206 : 200)) return response
    throw failureIn(response, await textOf(response))
  }

  async head(name: string): Promise<{ sizeBytes: number; etag: string } | null> {
    return retrying(this.retry, async () => {
      const { size, etag } = await this.#minio.statObject(this.#options.bucket, name)
      return { sizeBytes: size, etag }
    }).catch((error: unknown) => {
      if (['NotFound', 'NoSuchKey'].includes(codeOf(error))) return null
      throw error
    })
  }

  async initiate(name: string): Promise<string> {
    return retrying(this.retry, () =>
      this.#minio.initiateNewMultipartUpload(this.#options.bucket, name, {
        'Content-Type': 'application/octet-stream',
      }),
    )
  }

  /** One attempt to join the parts; the object's ETag. The caller finds out what a failure means. */
  async complete(name: string, upload: string, etags: readonly string[], sizeBytes: number): Promise<string> {
    try {
      const parts = etags.map((etag, i) => ({ part: i + 1, etag }))
      const patienceMs = this.#idleTimeoutMs + sizeBytes / SLOWEST_JOINED_BYTES_PER_MS
      const { etag } = await this.#patienceMs.run(patienceMs, () =>
        this.#minio.completeMultipartUpload(this.#options.bucket, name, upload, parts),
      )
      return etag
    } catch (error) {
      // S3 answers 200 before it is done and may send an error document then, which minio takes in more than one wrong way.
      if (error instanceof TypeError) throw new S3Failure(200, 'InternalError', 'no result after 200', { cause: error })
      throw failureOf(error)
    }
  }

  async abort(name: string, upload: string): Promise<void> {
    await retrying(this.retry, () => this.#minio.abortMultipartUpload(this.#options.bucket, name, upload)).catch(
      (error: unknown) => {
        if (!['NoSuchUpload', 'NotFound'].includes(codeOf(error))) throw error
      },
    )
  }

  /** Deletes up to 1000 objects; answers with those that stayed. */
  async remove(names: readonly string[]): Promise<Map<string, Error>> {
    const failed = await retrying(this.retry, () => this.#minio.removeObjects(this.#options.bucket, [...names]))
    const stayed = new Map<string, Error>()
    for (const entry of failed as { Key?: string; Code?: string; Message?: string }[]) {
      if (entry.Code === 'NoSuchKey') continue
      stayed.set(String(entry.Key), new S3Failure(200, String(entry.Code), String(entry.Message)))
    }
    return stayed
  }

  async *objects(prefix: string, after = ''): AsyncGenerator<{ name: string; sizeBytes: number; modifiedAt: Date }> {
    for (let token = '', more = true; more;) {
      const page = await retrying(this.retry, () =>
        this.#minio.listObjectsV2Query(this.#options.bucket, prefix, token, '', 1000, after),
      )
      for (const { name, size, lastModified } of page.objects) {
        if (name !== undefined) yield { name, sizeBytes: size, modifiedAt: new Date(lastModified) }
      }
      more = page.isTruncated
      token = page.nextContinuationToken
    }
  }

  async *uploads(prefix: string): AsyncGenerator<{ name: string; upload: string; startedAt: Date }> {
    for (let key = '', id = '', more = true; more;) {
      // Not listIncompleteUploads: it lists the parts of each upload as well.
      const page = await retrying(this.retry, () =>
        this.#minio.listIncompleteUploadsQuery(this.#options.bucket, prefix, key, id, ''),
      )
      for (const { key: name, uploadId, initiated } of page.uploads) {
        yield { name, upload: uploadId, startedAt: new Date(initiated) }
      }
      more = page.isTruncated
      key = page.nextKeyMarker
      id = page.nextUploadIdMarker
    }
  }

  /** A URL that reads the object for so many seconds at least, the same one for a quarter of an hour. */
  async signedUrl(name: string, seconds: number, query: Record<string, string>): Promise<string> {
    return this.#signedRead(this.#public, name, seconds, query)
  }

  async #signedRead(client: Client, name: string, seconds: number, query: Record<string, string>): Promise<string> {
    const quarter = Math.floor(Date.now() / QUARTER_HOUR_MS) * QUARTER_HOUR_MS
    const { urls } = this.#signed
    if (quarter !== this.#signed.quarter || urls.size >= MAX_SIGNATURES) urls.clear()
    this.#signed.quarter = quarter
    const id = JSON.stringify([name, seconds, query, client === this.#public])
    const known = urls.get(id)
    if (known !== undefined) return known
    const lifetime = seconds + QUARTER_HOUR_MS / 1000
    const url = await client.presignedUrl('GET', this.#options.bucket, name, lifetime, query, new Date(quarter))
    urls.set(id, url)
    return url
  }

  #request(
    method: string,
    url: string,
    headers: http.OutgoingHttpHeaders,
    signal: AbortSignal | undefined,
  ): http.ClientRequest {
    return this.#limited(
      this.#transport.request(url, { method, headers, agent: this.#agent, ...(signal && { signal }) }),
    )
  }

  #limited(request: http.ClientRequest): http.ClientRequest {
    const limitMs = this.#patienceMs.getStore() ?? this.#idleTimeoutMs
    // Behind the listener of this request's parser, which has copied the piece: left to the collector, pieces make a download take 50 MiB more.
    request.once('socket', (socket) => socket.off('data', release).on('data', release))
    return request.setTimeout(limitMs, () => {
      request.destroy(timedOut(`the store was silent for ${limitMs} ms`))
    })
  }
}

function account(endpoint: string, { accessKey, secretKey, region, pathStyle = true }: S3Options): ClientOptions {
  const url = new URL(endpoint)
  return {
    endPoint: url.hostname,
    ...(url.port !== '' && { port: Number(url.port) }),
    useSSL: url.protocol === 'https:',
    accessKey,
    secretKey,
    // Without it each client asks the store first.
    region,
    pathStyle,
  }
}

function timedOut(message: string): Error {
  return Object.assign(new Error(message), { code: 'ETIMEDOUT' })
}

function answerTo(request: http.ClientRequest, send: () => unknown): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    // Stays for the life of the request: an error after the answer is the response's to report.
    request.on('error', reject)
    request.once('response', resolve)
    send()
  })
}

/**
 * One buffer after the other, so that an early answer is read before the store closes the connection on us: a write into a closed
 * one would drop the answer and leave only EPIPE.
 */
async function sendAll(request: http.ClientRequest, buffers: readonly Uint8Array[]): Promise<void> {
  let answered = false
  request.once('response', () => (answered = true))
  for (const buffer of buffers) {
    // Also called with an error, which the request reports by itself.
    await new Promise<unknown>((resolve) => request.write(buffer, resolve))
    if (answered || request.destroyed) return
  }
  request.end()
}

async function textOf(response: http.IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response.setEncoding('utf8')) text += String(chunk).slice(0, 64 * 1024 - text.length)
  return text
}

function failureIn(response: http.IncomingMessage, body: string): S3Failure {
  const inside = (tag: string) => new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(body)?.[1] ?? ''
  return new S3Failure(response.statusCode ?? 0, inside('Code') || 'Unknown', inside('Message'))
}

function unquote(etag: string): string {
  return etag.replace(/^"|"$/g, '')
}
