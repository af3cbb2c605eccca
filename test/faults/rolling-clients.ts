import { randomBytes } from 'node:crypto'
import { Client, digestOf, imageOf, newImage, type Answer, type Ask, type Image } from './client.ts'
import { randomOf, repositories, sleep, type Load } from './harness.ts'
import type { History, Operation } from './history.ts'

/** As docker: a step that fails for a reason that may pass is tried again, five times at most, with growing pauses. */
const TRIES = 6
const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 4000

/** What clients had to do twice, and why: shared by all of them. */
export class Tally {
  requests = 0
  /** By what was asked and what came instead: `GET blobs 503`. */
  readonly retried = new Map<string, number>()

  again(why: string): void {
    this.retried.set(why, (this.retried.get(why) ?? 0) + 1)
  }

  get retries(): number {
    return [...this.retried.values()].reduce((sum, count) => sum + count, 0)
  }

  toString(): string {
    const why = [...this.retried].toSorted(([, a], [, b]) => b - a).map(([what, count]) => `${what}: ${count}`)
    return `${this.requests} requests, ${this.retries} retried${why.length > 0 ? ` (${why.join(', ')})` : ''}`
  }
}

/** Those give up no request for its time: what takes longer is taken for lost, and would be counted as sent again. */
const NO_ANSWER_MS = 60_000

/**
 * A client that does what docker and containerd do: after no answer, 429 or 5xx the request is sent again over a new connection. Bytes of an
 * upload are not: the upload is begun anew, or asked where it stands.
 */
export class PatientClient extends Client {
  readonly tally: Tally

  constructor(url: string, tally = new Tally()) {
    super(url)
    this.tally = tally
  }

  override async send(method: string, path: string, ask: Ask = {}): Promise<Answer> {
    const upload = method === 'PATCH' || (method === 'PUT' && path.includes('/blobs/uploads/'))
    for (let tries = 1; ; tries++) {
      this.tally.requests++
      const answer = await super.send(method, path, { timeoutMs: NO_ANSWER_MS, ...ask, afresh: tries > 1 }).catch(lost)
      if (!mayPass(answer) || upload || tries === TRIES) {
        if ('lost' in answer) throw answer.lost
        // What was to be gone is gone, by the request whose answer was lost.
        return method === 'DELETE' && tries > 1 && answer.status === 404 ? { ...answer, status: 202 } : answer
      }
      this.tally.again(`${method} ${kindOf(path)} ${reasonOf(answer)}`)
      await pause(tries, answer)
    }
  }

  /** As docker: a layer whose upload broke off is looked for, and sent again from its beginning. */
  override async pushBlob(repository: string, bytes: Buffer): Promise<Answer> {
    for (let tries = 1; ; tries++) {
      if (tries > 1) {
        const there = await this.headBlob(repository, digestOf(bytes))
        if (there.status === 200) return { ...there, status: 201 }
      }
      const answer = await super.pushBlob(repository, bytes).catch(lost)
      if (!mayPass(answer) || tries === TRIES) {
        if ('lost' in answer) throw answer.lost
        return answer
      }
      this.tally.again(`push blob ${reasonOf(answer)}`)
      await pause(tries, answer)
    }
  }

  /** A blob in chunks, each over a new connection: what breaks off goes on where the registry says. */
  async pushInChunks(repository: string, bytes: Buffer, chunk: number): Promise<Answer> {
    const digest = digestOf(bytes)
    let location = ''
    let at = 0
    const begin = async () => {
      const begun = await this.startUpload(repository)
      if (begun.status !== 202) throw new Error(`an upload was not begun: ${begun.status} ${begun.body}`)
      location = begun.location
      at = 0
    }
    await begin()
    for (let tries = 1; ;) {
      const last = at === bytes.length
      const answer = await (
        last
          ? this.finish(location, digest)
          : this.send('PATCH', location, {
              body: bytes.subarray(at, at + chunk),
              headers: {
                'content-type': 'application/octet-stream',
                'content-range': `${at}-${Math.min(at + chunk, bytes.length) - 1}`,
              },
              afresh: true,
            })
      ).catch(lost)
      if (!('lost' in answer) && answer.status === (last ? 201 : 202)) {
        if (last) return answer
        location = answer.headers.location!
        at = Math.min(at + chunk, bytes.length)
        continue
      }
      if (tries === TRIES) {
        if ('lost' in answer) throw answer.lost
        return answer
      }
      this.tally.again(`${last ? 'finish' : 'chunk'} ${reasonOf(answer)}`)
      await pause(tries++, answer)
      const there = await this.headBlob(repository, digest)
      if (there.status === 200) return { ...there, status: 201 }
      const state = await this.send('GET', location)
      if (state.status === 204) at = state.headers.range === '0-0' ? 0 : Number(state.headers.range!.slice(2)) + 1
      else await begin()
    }
  }
}

/** That there was no answer. Not told by `instanceof`: the errors of Node are of another realm than a test's. */
type Lost = { lost: NodeJS.ErrnoException }
const lost = (error: NodeJS.ErrnoException): Lost => ({ lost: error })

const mayPass = (answer: Answer | Lost) =>
  'lost' in answer || answer.status >= 500 || answer.status === 429 || answer.status === 408

const reasonOf = (answer: Answer | Lost) => ('lost' in answer ? (answer.lost.code ?? answer.lost.name) : answer.status)

const kindOf = (path: string) => /\/(manifests|blobs|tags|referrers|token|api)\b/.exec(path)?.[1] ?? path

async function pause(tries: number, answer: Answer | Lost): Promise<void> {
  const asked = 'lost' in answer ? 0 : Number(answer.headers['retry-after'] ?? 0) * 1000
  await sleep(
    Math.max(asked, Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS)) * (0.75 + Math.random() / 2),
  )
}

/** Blobs of these sizes, in chunks of a third: some smaller than a part of S3, some larger. */
const SIZES = [1, 1000, 30_000, 300_000, 300_000, 3_000_000, 7_000_000]

/**
 * Actors who push large images in chunks with referrers, sign in, and pull what they pushed to compare it, through every service. Everything is
 * in the history. `stop` throws what was answered wrong.
 */
export function startWholeRounds(client: PatientClient, seed: number, actors: number, history: History): Load {
  let stopping = false
  const running = Array.from({ length: actors }, async (_, number) => {
    const random = randomOf(seed + 1000 + number)
    const repository = `library/whole-${number}`
    const recent: Image[] = []
    while (!stopping) {
      await wholeRound(client, { client: 1000 + number, repository }, random, recent, history)
      await sleep(250)
    }
  })
  return {
    history,
    async stop() {
      stopping = true
      await Promise.all(running)
    },
  }
}

async function wholeRound(
  client: PatientClient,
  who: Pick<Operation, 'client' | 'repository'>,
  random: (below: number) => number,
  recent: Image[],
  history: History,
): Promise<void> {
  const { repository } = who
  const signedIn = await history.attempt({ ...who, kind: 'sign in', subject: '' }, () =>
    client.signIn([...repositories, ...wholeRepositories]),
  )
  if (signedIn?.status !== 200) return
  const layer = randomBytes(SIZES[random(SIZES.length)]! + random(100))
  const [config] = newImage(random).layers
  const image = imageOf([config!, layer])
  for (const bytes of image.layers) {
    const subject = history.rememberSize(bytes)
    const pushed = await history.attempt({ ...who, kind: 'push blob', subject }, () =>
      client.pushInChunks(repository, bytes, Math.ceil(bytes.length / 3)),
    )
    if (pushed?.status !== 201) return
  }
  const put = async (bytes: Buffer) => {
    const subject = history.remember(bytes)
    const answer = await history.attempt({ ...who, kind: 'push manifest', subject }, () =>
      client.putManifest(repository, subject, bytes),
    )
    return answer?.status === 201
  }
  const referrer = referrerOf(image)
  if (!(await put(image.manifest)) || !(await put(referrer))) return
  await pullBack(client, repository, image, digestOf(referrer))
  recent.push(image)
  if (recent.length <= 5) return
  const old = recent.shift()!
  for (const subject of [digestOf(referrerOf(old)), old.digest]) {
    await history.attempt({ ...who, kind: 'delete manifest', subject }, () =>
      client.deleteManifest(repository, subject),
    )
  }
}

export const wholeRepositories = Array.from({ length: 16 }, (_, number) => `library/whole-${number}`)

function referrerOf({ manifest, digest }: Image): Buffer {
  const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: manifest.length }
  return Buffer.from(JSON.stringify({ ...JSON.parse(manifest.toString()), subject }))
}

/** @throws when anything of it is not what was pushed. */
async function pullBack(client: PatientClient, repository: string, image: Image, referrer: string): Promise<void> {
  const wrong: string[] = []
  const manifest = await client.getManifest(repository, image.digest)
  if (manifest.status !== 200 || !manifest.body.equals(image.manifest)) wrong.push(`manifest ${manifest.status}`)
  for (const bytes of image.layers) {
    const blob = await client.getBlob(repository, digestOf(bytes))
    if (blob.status !== 200 || !blob.body.equals(bytes)) wrong.push(`blob of ${bytes.length} bytes: ${blob.status}`)
  }
  const referrers = await client.send('GET', `/v2/${repository}/referrers/${image.digest}`)
  if (referrers.status !== 200 || !referrers.body.includes(referrer)) wrong.push(`referrers ${referrers.status}`)
  const artifact = await client.send(
    'GET',
    `/api/v2.0/projects/library/repositories/${repository.slice(8)}/artifacts/${image.digest}`,
    { headers: { authorization: client.basic } },
  )
  if (artifact.status !== 200) wrong.push(`artifact ${artifact.status}`)
  if (wrong.length > 0) throw new Error(`${repository}@${image.digest}: ${wrong.join(', ')}`)
}
