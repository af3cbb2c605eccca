import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import { parseArgs } from 'node:util'
import { ADMIN_PASSWORD, startHaven } from '@haven/testkit'
import { startVersityGw } from '@haven/testkit/versitygw'
import { cpuSecondsOf } from './cpu.ts'

// node test/perf/large-blob.ts [--gib 20] [--store files|s3]: one blob of zeros goes in and out; says what the front process needs for it.
// Not in the gate: it writes and reads as many bytes as it is told to.

const GIB = 1024 ** 3
const PIECE = Buffer.alloc(1024 * 1024)
const REPOSITORY = 'library/large'
const SAMPLE_MS = 100

const { values } = parseArgs({
  options: { gib: { type: 'string', default: '20' }, store: { type: 'string', default: 'files' } },
})
const sizeBytes = Math.round(Number(values.gib) * GIB)
if (!(sizeBytes > 0) || !['files', 's3'].includes(values.store))
  throw new Error('usage: --gib <number> --store files|s3')

await using stack = new AsyncDisposableStack()
const s3 = values.store === 's3' ? stack.use(await startVersityGw()) : null
const haven = stack.use(await startHaven({ env: s3 ? { ...s3.settings } : {} }))
const front = haven.processes().front!
const authorization = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`

const rssMiB = () => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${front}/status`, 'utf8'))![1]) / 1024

/** Sends a request; `write` gives its body. */
async function ask(
  method: string,
  path: string,
  write: (req: ClientRequest) => unknown = (req) => req.end(),
): Promise<IncomingMessage> {
  const req = request(new URL(path, haven.url), {
    method,
    headers: { authorization, 'content-type': 'application/octet-stream' },
  })
  const answered = new Promise<IncomingMessage>((resolve, reject) =>
    req.once('response', resolve).once('error', reject),
  )
  write(req)
  return answered
}

async function expectStatus(answer: IncomingMessage, status: number): Promise<IncomingMessage> {
  if (answer.statusCode === status) return answer
  throw new Error(`${answer.statusCode} instead of ${status}: ${(await answer.toArray()).join('')}`)
}

/** Runs a step and prints how long it took, what it cost the front process, and how its memory went in each quarter of the time. */
async function measured(what: string, act: () => Promise<void>): Promise<void> {
  const [rss, cpu, begun] = [rssMiB(), cpuSecondsOf([front]), performance.now()]
  const samples: number[] = []
  const timer = setInterval(() => samples.push(rssMiB()), SAMPLE_MS)
  await act().finally(() => clearInterval(timer))
  const seconds = (performance.now() - begun) / 1000
  const quarters = [0, 1, 2, 3].map((n) => {
    const part = samples.slice((samples.length * n) / 4, (samples.length * (n + 1)) / 4)
    return Math.round(Math.max(0, ...part))
  })
  const perGib = (cpuSecondsOf([front]) - cpu) / (sizeBytes / GIB)
  process.stdout.write(
    `${what}: ${seconds.toFixed(0)} s, ${perGib.toFixed(2)} CPU s/GiB, RSS ${Math.round(rss)} MiB before, peak by quarters ${quarters.join(' ')} MiB\n`,
  )
}

const hash = createHash('sha256')
for (let left = sizeBytes; left > 0; left -= PIECE.length) hash.update(PIECE.subarray(0, Math.min(left, PIECE.length)))
const digest = `sha256:${hash.digest('hex')}`

await measured(`push of ${values.gib} GiB to ${values.store}`, async () => {
  const opened = await expectStatus(await ask('POST', `/v2/${REPOSITORY}/blobs/uploads/`), 202)
  opened.resume()
  const patched = await ask('PATCH', opened.headers.location!, (req) => {
    let left = sizeBytes
    const more = () => {
      while (left > 0) {
        const piece = PIECE.subarray(0, Math.min(left, PIECE.length))
        left -= piece.length
        if (!req.write(piece)) return void req.once('drain', more)
      }
      req.end()
    }
    more()
  })
  await expectStatus(patched, 202)
  patched.resume()
  const location = patched.headers.location!
  const path = `${location}${location.includes('?') ? '&' : '?'}digest=${digest}`
  ;(await expectStatus(await ask('PUT', path), 201)).resume()
})

await measured(`pull of ${values.gib} GiB from ${values.store}`, async () => {
  const answer = await expectStatus(await ask('GET', `/v2/${REPOSITORY}/blobs/${digest}`), 200)
  const received = createHash('sha256')
  for await (const piece of answer) received.update(piece as Buffer)
  if (`sha256:${received.digest('hex')}` !== digest) throw new Error('the blob came back differently')
})
