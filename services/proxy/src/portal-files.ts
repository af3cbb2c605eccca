import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { extname, join, relative, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { harborEnvelope, problems } from '@haven/errors'
import { sendProblem } from '@haven/runtime'

const compress = promisify(gzip)

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.webmanifest': 'application/manifest+json',
  '.txt': 'text/plain; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webp': 'image/webp',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.wasm': 'application/wasm',
}
const MEMORY_FILE_BYTES = 1024 * 1024
const RESCAN_MS = 1000

interface PortalFile {
  readonly path: string
  readonly type: string
  readonly sizeBytes: number
  readonly etag: string
  readonly cacheControl: string
  /** Null for a file that is streamed from disk. */
  readonly plain: Buffer | null
  readonly gzipped: Buffer | null
}

/** Everything the portal's pages need comes from here; frames, other origins and inline scripts are refused. */
const PAGE_POLICY = [
  "default-src 'self'",
  "img-src 'self' data:",
  "object-src 'none'",
  "base-uri 'self'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ')

/**
 * The files of one folder, found by exact name, so that no path of a request ever becomes a path of this machine. A path that
 * names no file and has no extension is a page of the single page application. A rebuilt portal is noticed by its index.html.
 */
export class PortalFiles {
  readonly #folder: string
  #files = new Map<string, PortalFile>()
  #loading: Promise<void> | null = null
  #version = ''
  #checkedAt = 0

  constructor(folder: string) {
    this.#folder = folder
  }

  async answer(req: IncomingMessage, res: ServerResponse, path: string): Promise<void> {
    if (req.method !== 'GET' && req.method !== 'HEAD') {
      const facts = { method: req.method ?? '', allowed: ['GET', 'HEAD'] }
      return sendProblem(
        req,
        res,
        problems.methodNotAllowed(facts, { headers: { Allow: 'GET, HEAD' } }),
        harborEnvelope,
      )
    }
    await this.#refresh()
    const wanted = path === '/' ? '/index.html' : path
    const isPage = extname(wanted) === '' && !wanted.includes('/.')
    const file = this.#files.get(wanted) ?? (isPage ? this.#files.get('/index.html') : undefined)
    if (!file) return sendProblem(req, res, problems.pathNotFound({ path }), harborEnvelope)

    res.setHeader('Content-Security-Policy', PAGE_POLICY)
    res.setHeader('Cache-Control', file.cacheControl)
    res.setHeader('ETag', file.etag)
    if (file.gzipped) res.setHeader('Vary', 'Accept-Encoding')
    if (req.headers['if-none-match'] === file.etag) {
      res.writeHead(304).end()
      return
    }
    const zipped = file.gzipped && /\bgzip\b/.test(String(req.headers['accept-encoding'] ?? '')) ? file.gzipped : null
    res.setHeader('Content-Type', file.type)
    res.setHeader('Content-Length', zipped?.length ?? file.sizeBytes)
    if (zipped) res.setHeader('Content-Encoding', 'gzip')
    if (req.method === 'HEAD') res.end()
    else if (zipped ?? file.plain) res.end(zipped ?? file.plain)
    else await pipeline(createReadStream(file.path, { highWaterMark: MEMORY_FILE_BYTES }), res)
  }

  async #refresh(): Promise<void> {
    if (Date.now() - this.#checkedAt < RESCAN_MS) return this.#loading ?? undefined
    this.#checkedAt = Date.now()
    const index = await stat(join(this.#folder, 'index.html')).catch(() => null)
    const version = index === null ? 'none' : `${index.mtimeMs} ${index.ino}`
    if (version === this.#version) return
    this.#version = version
    this.#loading = this.#load().finally(() => {
      this.#loading = null
    })
    return this.#loading
  }

  async #load(): Promise<void> {
    const entries = await readdir(this.#folder, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    })
    const files = new Map<string, PortalFile>()
    for (const entry of entries) {
      // Source maps would publish the sources (threats.md §6, "Also expected").
      if (!entry.isFile() || entry.name.startsWith('.') || entry.name.endsWith('.map')) continue
      const path = join(entry.parentPath, entry.name)
      files.set(`/${relative(this.#folder, path).split(sep).join('/')}`, await portalFile(path))
    }
    this.#files = files
  }
}

async function portalFile(path: string): Promise<PortalFile> {
  const { size, mtimeMs } = await stat(path)
  const type = types[extname(path)] ?? 'application/octet-stream'
  const plain = size <= MEMORY_FILE_BYTES ? await readFile(path) : null
  const text = /^text|json|svg|wasm/.test(type)
  const gzipped = plain && text && plain.length > 1024 ? await compress(plain, { level: 9 }) : null
  const hash = createHash('sha256').update(plain ?? `${size} ${mtimeMs}`)
  return {
    path,
    type,
    sizeBytes: plain?.length ?? size,
    etag: `"${hash.digest('base64url').slice(0, 22)}"`,
    cacheControl: cacheControlOf(path),
    plain,
    gzipped,
  }
}

function cacheControlOf(path: string): string {
  if (path.endsWith('index.html')) return 'no-store, no-cache, must-revalidate'
  // The build puts a hash of the content into these names.
  return /[-.][A-Za-z0-9_]{8,}\.(?:js|css|woff2|svg|png|webp)$/.test(path)
    ? 'public, max-age=31536000, immutable'
    : 'no-cache'
}
