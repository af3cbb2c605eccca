import { digestOf, IMAGE_TYPE, type Answer, type Client } from './client.ts'

/** Reliability.md §6: 2xx happened; 4xx did not; whatever else may have happened, wholly. */
export type Result = 'ok' | 'fail' | 'unknown'

export type Operation = {
  client: number
  kind: 'push blob' | 'push manifest' | 'delete manifest' | 'write tag' | 'read tag' | 'sign in' | 'list tags'
  repository: string
  /** What it is about: a digest, or the tag. */
  subject: string
  /** Of a tag: the digest it was given or found at; null for none. */
  value: string | null
  invokedAt: number
  returnedAt: number
  result: Result
  /** 0: no answer. */
  status: number
  /** What was said when it did not go well. */
  said: string
}

export type Attempt = Pick<Operation, 'client' | 'kind' | 'repository' | 'subject'> & { value?: string | null }

/** What clients did and were told, in the order in which they learned it. */
export class History {
  readonly operations: Operation[] = []
  /** The bytes behind each digest that somebody tried to push. */
  readonly contents = new Map<string, Buffer>()
  readonly #sizes = new Map<string, number>()

  /**
   * Does it, writes down how it went, and returns the answer; null when there was none. A request may be several operations in one: a
   * manifest and its tag.
   */
  async attempt(
    what: Attempt | readonly Attempt[],
    act: () => Promise<Answer>,
    valueOf?: (answer: Answer) => string | null,
  ): Promise<Answer | null> {
    const invokedAt = performance.now()
    let answer: Answer | null = null
    let said = ''
    try {
      answer = await act()
      if (answer.status >= 400) said = answer.body.toString('utf8', 0, 300)
    } catch (error) {
      said = String(error)
    }
    const returnedAt = performance.now()
    const status = answer?.status ?? 0
    for (const each of [what].flat<(Attempt | readonly Attempt[])[]>()) {
      const value = answer && valueOf ? valueOf(answer) : (each.value ?? null)
      this.operations.push({ ...each, value, invokedAt, returnedAt, status, said, result: resultOf(each.kind, status) })
    }
    return answer
  }

  remember(bytes: Buffer): string {
    const digest = this.rememberSize(bytes)
    this.contents.set(digest, bytes)
    return digest
  }

  /** Of a blob, which its digest describes: all of them would be too much for a long run. */
  rememberSize(bytes: Buffer): string {
    const digest = digestOf(bytes)
    this.#sizes.set(digest, bytes.length)
    return digest
  }

  sizeOf(digest: string): number {
    return this.#sizes.get(digest)!
  }

  of(kind: Operation['kind'], result?: Result): Operation[] {
    return this.operations.filter((op) => op.kind === kind && (result === undefined || op.result === result))
  }

  /** How many operations ended with each status. */
  statuses(): Record<number, number> {
    const counts: Record<number, number> = {}
    for (const { status } of this.operations) counts[status] = (counts[status] ?? 0) + 1
    return counts
  }
}

function resultOf(kind: Operation['kind'], status: number): Result {
  if (status >= 200 && status < 300) return 'ok'
  // Nothing there is an answer too.
  if ((kind === 'read tag' || kind === 'list tags') && status === 404) return 'ok'
  return status >= 400 && status < 500 ? 'fail' : 'unknown'
}

export type CheckOptions = {
  /** Blobs that nothing refers to may be gone: garbage was collected without their grace. */
  unreferencedMayGo?: boolean
}

/**
 * Reads everything back from a system at rest and replays the history against it. Returns the violations of I1 to I4, I6 and I11 of
 * reliability.md §2, each a sentence that begins with the invariant's name.
 */
export async function check(
  history: History,
  clients: readonly Client[],
  options: CheckOptions = {},
): Promise<string[]> {
  const violations: string[] = []
  const client = clients[0]!
  if (!options.unreferencedMayGo) {
    await forEach(distinct(history.of('push blob', 'ok')), async ({ repository, subject }) => {
      const wrong = await blobIsWrong(client, repository, subject, history.sizeOf(subject))
      if (wrong) violations.push(`I1: acknowledged blob ${repository}@${subject} ${wrong}`)
    })
  }
  violations.push(...(await checkManifests(history, clients)))
  violations.push(...(await checkTags(history, client)))
  return violations
}

async function checkManifests(history: History, clients: readonly Client[]): Promise<string[]> {
  const violations: string[] = []
  const client = clients[0]!
  const deleted = new Map<string, Result>()
  for (const op of history.of('delete manifest')) {
    if (op.result !== 'fail') deleted.set(`${op.repository}@${op.subject}`, op.result)
  }
  const pushes = history.of('push manifest')
  const acknowledged = new Set(pushes.filter((op) => op.result === 'ok').map(nameOf))
  const unknown = new Set(pushes.filter((op) => op.result === 'unknown').map(nameOf))
  await forEach(distinct(pushes), async (op) => {
    const name = nameOf(op)
    const gone = deleted.get(name)
    if (gone === 'ok') {
      for (const each of clients) {
        const { status } = await each.getManifest(op.repository, op.subject)
        if (status !== 404) violations.push(`I11: ${name} was deleted and answers ${status}`)
      }
      return
    }
    const answer = await client.getManifest(op.repository, op.subject)
    if (answer.status === 404) {
      if (acknowledged.has(name) && gone === undefined) violations.push(`I2: acknowledged manifest ${name} is lost`)
      return
    }
    if (answer.status !== 200) return void violations.push(`I2: manifest ${name} answers ${answer.status}`)
    if (!acknowledged.has(name) && !unknown.has(name)) violations.push(`I6: ${name} was refused and is there`)
    if (!answer.body.equals(history.contents.get(op.subject)!) || answer.headers['content-type'] !== IMAGE_TYPE) {
      violations.push(`I2: manifest ${name} is not what was pushed`)
    }
    for (const part of partsOf(answer.body)) {
      const wrong = await blobIsWrong(client, op.repository, part.digest, part.size)
      if (wrong) violations.push(`I4: ${part.digest} of readable manifest ${name} ${wrong}`)
    }
  })
  return violations
}

async function checkTags(history: History, client: Client): Promise<string[]> {
  const violations: string[] = []
  const writes = Map.groupBy(history.of('write tag'), nameOf)
  const reads = Map.groupBy(history.of('read tag', 'ok'), nameOf)
  for (const [name, written] of writes) {
    const { repository, subject } = written[0]!
    const invokedAt = performance.now()
    const answer = await client.getManifest(repository, subject)
    const last = { ...written[0]!, value: tagValue(answer), invokedAt, returnedAt: performance.now() }
    for (const read of [...(reads.get(name) ?? []), last]) {
      if (!isExplained(read, written)) {
        violations.push(`I3: tag ${name} was read as ${read.value} though a later write had been acknowledged`)
      }
    }
  }
  return violations
}

/** What a read of a tag found: null when there is none. */
export const tagValue = (answer: Answer): string | null => (answer.status === 200 ? digestOf(answer.body) : null)

/** A register: some write gave this value, began before the read ended, and was not overtaken by another one wholly between the two. */
function isExplained(read: Operation, writes: readonly Operation[]): boolean {
  const tried = writes.filter((op) => op.result !== 'fail')
  const acknowledged = tried.filter((op) => op.result === 'ok')
  const never = { value: null, invokedAt: -Infinity, returnedAt: -Infinity, result: 'ok' as Result }
  return [never, ...tried].some((write) => {
    if (write.value !== read.value || write.invokedAt > read.returnedAt) return false
    const doneAt = write.result === 'ok' ? write.returnedAt : Infinity
    return !acknowledged.some((other) => other.invokedAt > doneAt && other.returnedAt < read.invokedAt)
  })
}

async function blobIsWrong(client: Client, repository: string, digest: string, size: number): Promise<string | null> {
  const head = await client.headBlob(repository, digest)
  if (head.status !== 200) return `answers ${head.status} to HEAD`
  if (Number(head.headers['content-length']) !== size) return `has ${head.headers['content-length']} bytes, not ${size}`
  // A cut connection is how a damaged object shows itself.
  const got = await client.getBlob(repository, digest).catch((error: Error) => error)
  if (got instanceof Error) return `cannot be read: ${got.message}`
  if (got.status !== 200) return `answers ${got.status} to GET`
  return digestOf(got.body) === digest ? null : 'has other bytes'
}

function partsOf(manifest: Buffer): { digest: string; size: number }[] {
  const { config, layers } = JSON.parse(manifest.toString()) as {
    config: { digest: string; size: number }
    layers: { digest: string; size: number }[]
  }
  return [config, ...layers]
}

const nameOf = ({ repository, subject, kind }: Operation) =>
  `${repository}${kind.endsWith('tag') ? ':' : '@'}${subject}`

const distinct = (operations: readonly Operation[]) => [...new Map(operations.map((op) => [nameOf(op), op])).values()]

async function forEach<T>(items: readonly T[], act: (item: T) => Promise<void>, atOnce = 8): Promise<void> {
  const left = [...items]
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await act(item)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}
