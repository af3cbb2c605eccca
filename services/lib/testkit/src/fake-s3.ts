import { createHash, randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { errorDocument, operationOf, S3Faults, type S3Operation } from './s3-faults.ts'

export type { S3Fault, S3Operation } from './s3-faults.ts'

const MIN_PART = 5 * 1024 ** 2

interface Stored {
  readonly bytes: Buffer
  readonly etag: string
  readonly modifiedAt: Date
}

interface Multipart {
  readonly key: string
  readonly startedAt: Date
  readonly parts: Map<number, Stored>
}

interface Answer {
  readonly status: number
  readonly headers?: Record<string, string | number>
  readonly body?: string | Buffer
}

/**
 * An S3 server in memory that counts requests and fails as told: for what a real one cannot be made to do. Path style, one
 * bucket space, signatures are required but not verified; conditions, part sizes and ETags are as S3's.
 */
export class FakeS3 extends S3Faults implements AsyncDisposable {
  readonly objects = new Map<string, Stored>()
  readonly uploads = new Map<string, Multipart>()
  /** Called before an operation is carried out: a test can hold it there. */
  gate: (operation: S3Operation, key: string) => Promise<void> | void = () => {}
  readonly #buckets = new Set<string>()
  readonly #server = createServer((req, res) => {
    this.#serve(req, res).catch((error: Error) => res.destroy(error))
  })
  readonly #pageSize: number

  private constructor(pageSize: number) {
    super()
    this.#pageSize = pageSize
  }

  static async start({ pageSize = 1000 } = {}): Promise<FakeS3> {
    const fake = new FakeS3(pageSize)
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve))
    return fake
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Its requests are answered NoSuchBucket from now on. */
  dropBucket(bucket: string): void {
    this.#buckets.delete(bucket)
  }

  override reset(): void {
    super.reset()
    this.gate = () => {}
  }

  async [Symbol.asyncDispose]() {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #serve(req: IncomingMessage, res: ServerResponse) {
    const url = new URL(req.url ?? '/', 'http://s3')
    const [, bucket = '', ...rest] = url.pathname.split('/').map(decodeURIComponent)
    const key = rest.join('/')
    const operation = operationOf(req.method ?? '', key, url.searchParams)
    this.count(operation)
    const chunks: Buffer[] = []
    for await (const chunk of req) chunks.push(chunk as Buffer)
    await this.gate(operation, key)
    const fault = this.nextFault(operation)
    if (fault === 'slow down') return send(res, refuse(503, 'SlowDown'))
    if (fault === 'error before') return send(res, refuse(500, 'InternalError'))
    if (fault === 'silence before') return
    if (fault === 'hang up before') return res.destroy()
    if (fault === 'error in 200') return send(res, { ...refuse(500, 'InternalError'), status: 200 })
    const signed = url.searchParams.has('X-Amz-Signature') || req.headers.authorization !== undefined
    const answer = signed
      ? this.#apply(operation, bucket, key, url.searchParams, req, Buffer.concat(chunks))
      : refuse(403, 'AccessDenied')
    if (fault === 'error after') return send(res, refuse(500, 'InternalError'))
    if (fault === 'silence after') return
    if (fault === 'hang up after') return res.destroy()
    if (fault === 'truncated') {
      const body = answer.body as Buffer
      res.writeHead(answer.status, { 'Content-Length': body.length, ...answer.headers })
      return res.write(body.subarray(0, body.length / 2), () => res.destroy())
    }
    return send(res, fault === 'wrong etag' ? withWrongEtag(answer) : answer, req.method === 'HEAD')
  }

  #apply(
    operation: S3Operation,
    bucket: string,
    key: string,
    query: URLSearchParams,
    req: IncomingMessage,
    body: Buffer,
  ): Answer {
    if (operation === 'CreateBucket') {
      if (this.#buckets.has(bucket)) return refuse(409, 'BucketAlreadyOwnedByYou')
      this.#buckets.add(bucket)
      return { status: 200 }
    }
    if (!this.#buckets.has(bucket)) return refuse(404, 'NoSuchBucket')
    const upload = this.uploads.get(query.get('uploadId') ?? '')
    switch (operation) {
      case 'HeadBucket':
        return { status: 200 }
      case 'PutObject':
        if (req.headers['if-none-match'] === '*' && this.objects.has(key)) return refuse(412, 'PreconditionFailed')
        return { status: 200, headers: { ETag: `"${this.#store(key, body).etag}"` } }
      case 'GetObject':
      case 'HeadObject':
        return this.#read(key, req.headers.range)
      case 'DeleteObject':
        this.objects.delete(key)
        return { status: 204 }
      case 'DeleteObjects':
        for (const [, name = ''] of body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)) this.objects.delete(name)
        return xml('<DeleteResult/>')
      case 'ListObjectsV2':
        return this.#list(query)
      case 'CreateMultipartUpload': {
        const id = randomUUID()
        this.uploads.set(id, { key, startedAt: new Date(), parts: new Map() })
        return xml(
          `<InitiateMultipartUploadResult><Bucket>${bucket}</Bucket><Key>${key}</Key><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
        )
      }
      case 'UploadPart': {
        if (upload?.key !== key) return refuse(404, 'NoSuchUpload')
        const part = stored(body)
        upload.parts.set(Number(query.get('partNumber')), part)
        return { status: 200, headers: { ETag: `"${part.etag}"` } }
      }
      case 'CompleteMultipartUpload':
        return upload?.key === key
          ? this.#complete(query.get('uploadId') ?? '', upload, body)
          : refuse(404, 'NoSuchUpload')
      case 'AbortMultipartUpload':
        return this.uploads.delete(query.get('uploadId') ?? '') ? { status: 204 } : refuse(404, 'NoSuchUpload')
      case 'ListMultipartUploads': {
        const found = [...this.uploads].filter(([, { key: name }]) => name.startsWith(query.get('prefix') ?? ''))
        const rows = found.map(
          ([id, { key: name, startedAt }]) =>
            `<Upload><Key>${name}</Key><UploadId>${id}</UploadId><Initiated>${startedAt.toISOString()}</Initiated></Upload>`,
        )
        return xml(
          `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>${rows.join('')}</ListMultipartUploadsResult>`,
        )
      }
    }
  }

  #store(key: string, bytes: Buffer, etag?: string): Stored {
    const object = etag === undefined ? stored(bytes) : { ...stored(bytes), etag }
    this.objects.set(key, object)
    return object
  }

  #read(key: string, range: string | undefined): Answer {
    const object = this.objects.get(key)
    if (!object) return refuse(404, 'NoSuchKey')
    const headers = { ETag: `"${object.etag}"`, 'Last-Modified': object.modifiedAt.toUTCString() }
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? []
    if (from === undefined || to === undefined) return { status: 200, headers, body: object.bytes }
    if (Number(from) >= object.bytes.length) return refuse(416, 'InvalidRange')
    return { status: 206, headers, body: object.bytes.subarray(Number(from), Number(to) + 1) }
  }

  #complete(id: string, upload: Multipart, body: Buffer): Answer {
    const wanted = [...body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber>\s*<ETag>([^<]*)<\/ETag>/g)]
    const parts: Stored[] = []
    for (const [i, [, number, etag]] of wanted.entries()) {
      const part = upload.parts.get(Number(number))
      if (!part || part.etag !== etag?.replaceAll(/"|&quot;/g, '')) return refuse(400, 'InvalidPart')
      if (part.bytes.length < MIN_PART && i < wanted.length - 1) return refuse(400, 'EntityTooSmall')
      parts.push(part)
    }
    if (parts.length === 0) return refuse(400, 'MalformedXML')
    const digests = Buffer.concat(parts.map(({ etag }) => Buffer.from(etag, 'hex')))
    const etag = `${createHash('md5').update(digests).digest('hex')}-${parts.length}`
    this.#store(upload.key, Buffer.concat(parts.map(({ bytes }) => bytes)), etag)
    this.uploads.delete(id)
    return xml(
      `<CompleteMultipartUploadResult><Location>x</Location><Bucket>b</Bucket><Key>${upload.key}</Key><ETag>&quot;${etag}&quot;</ETag></CompleteMultipartUploadResult>`,
    )
  }

  #list(query: URLSearchParams): Answer {
    const prefix = query.get('prefix') ?? ''
    const after = query.get('continuation-token') ?? query.get('start-after') ?? ''
    const names = [...this.objects.keys()].filter((name) => name.startsWith(prefix) && name > after).sort()
    const page = names.slice(0, this.#pageSize)
    const rows = page.map((name) => {
      const { bytes, etag, modifiedAt } = this.objects.get(name) as Stored
      return `<Contents><Key>${name}</Key><LastModified>${modifiedAt.toISOString()}</LastModified><ETag>"${etag}"</ETag><Size>${bytes.length}</Size></Contents>`
    })
    const more = names.length > page.length
    const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : ''
    return xml(`<ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${rows.join('')}</ListBucketResult>`)
  }
}

function stored(bytes: Buffer): Stored {
  return { bytes, etag: createHash('md5').update(bytes).digest('hex'), modifiedAt: new Date() }
}

function xml(body: string, status = 200): Answer {
  return {
    status,
    headers: { 'Content-Type': 'application/xml' },
    body: `<?xml version="1.0" encoding="UTF-8"?>\n${body}`,
  }
}

function refuse(status: number, code: string): Answer {
  return xml(errorDocument(code), status)
}

function withWrongEtag({ status, headers, body }: Answer): Answer {
  const wrong = '0'.repeat(32)
  const text = typeof body === 'string' ? body.replace(/(?<=<ETag>).*?(?=<)/, `&quot;${wrong}-1&quot;`) : body
  return { status, headers: { ...headers, ETag: `"${wrong}"` }, ...(text !== undefined && { body: text }) }
}

function send(res: ServerResponse, { status, headers, body = '' }: Answer, withoutBody = false) {
  res.writeHead(status, { 'Content-Length': Buffer.byteLength(body), ...headers })
  res.end(withoutBody ? undefined : body)
}
