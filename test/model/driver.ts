import { createHash } from 'node:crypto'
import type { HavenInstallation } from '@haven/testkit'
import { digestOf, IMAGE_TYPE, type Answer, type Client } from '../faults/client.ts'
import {
  garbageCollectionEnded,
  isHealthy,
  kill,
  sleep,
  startGarbageCollection,
  startReplica,
  until,
  type Replica,
} from '../faults/harness.ts'
import { pieceEnd, type Operation, type Plan } from './model.ts'

const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json'

/** What an operation answered, in the model's words; null when nobody can say whether it happened. */
export type Seen = string | null

/** Carries operations out. Which of the two front processes gets one is the caller's choice. */
export interface Driver {
  carryOut(op: Operation, through: 0 | 1): Promise<Seen>
}

/** A plan's numbers as bytes: the same for the same salt, and nobody else's. */
export class Contents {
  readonly blobs: Buffer[]
  readonly manifests: { bytes: Buffer; digest: string; type: string }[] = []

  constructor(plan: Plan, salt: string) {
    this.blobs = plan.blobs.map((size, n) => bytesOf(`${salt} ${n}`, size))
    for (const [n, { blobs, children, subject }] of plan.manifests.entries()) {
      const blob = (of: number, mediaType: string) => ({
        mediaType,
        digest: digestOf(this.blobs[of]!),
        size: this.blobs[of]!.length,
      })
      const manifest = (of: number) => {
        const { bytes, digest, type } = this.manifests[of]!
        return { mediaType: type, digest, size: bytes.length }
      }
      const type = blobs.length === 0 ? INDEX_TYPE : IMAGE_TYPE
      const body = {
        schemaVersion: 2,
        mediaType: type,
        ...(type === IMAGE_TYPE
          ? {
              config: blob(blobs[0]!, 'application/vnd.oci.image.config.v1+json'),
              layers: blobs.slice(1).map((each) => blob(each, 'application/vnd.oci.image.layer.v1.tar')),
            }
          : { manifests: children.map(manifest) }),
        ...(subject !== null && { subject: manifest(subject) }),
        annotations: { number: `${salt} ${n}` },
      }
      const bytes = Buffer.from(JSON.stringify(body))
      this.manifests.push({ bytes, digest: digestOf(bytes), type })
    }
  }
}

function bytesOf(salt: string, size: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(size / 32) }, (_, n) =>
    createHash('sha256').update(`${salt} ${n}`).digest(),
  )
  return Buffer.concat(blocks).subarray(0, size)
}

/** An installation, and a second front process beside it that may be killed at any point. */
export class Fronts implements AsyncDisposable {
  readonly haven: HavenInstallation
  readonly client: Client
  #replica: Replica | null = null
  #beside: Client | null = null

  constructor(haven: HavenInstallation, client: Client) {
    this.haven = haven
    this.client = client
  }

  through(which: 0 | 1): Client {
    return which === 1 && this.#beside ? this.#beside : this.client
  }

  async restart(fault: string | null): Promise<void> {
    await this[Symbol.asyncDispose]()
    const replica = await startReplica(this.haven, fault === null ? {} : { FAULT: `${fault}:1:exit` })
    const beside = this.client.at(replica.url)
    this.#replica = replica
    this.#beside = beside
    void replica.exited.then(() => {
      if (this.#beside === beside) this.#beside = null
    })
  }

  async [Symbol.asyncDispose]() {
    const replica = this.#replica
    this.#replica = null
    this.#beside?.close()
    this.#beside = null
    await replica?.[Symbol.asyncDispose]()
  }
}

export class RegistryDriver implements Driver {
  readonly #fronts: Fronts
  readonly #contents: Contents
  readonly #names: readonly string[]
  readonly #uploads = new Map<number, { location: string; blob: number }>()

  constructor(fronts: Fronts, contents: Contents, names: readonly string[]) {
    this.#fronts = fronts
    this.#contents = contents
    this.#names = names
  }

  async carryOut(op: Operation, through: 0 | 1): Promise<Seen> {
    const client = this.#fronts.through(through)
    switch (op.do) {
      case 'push blob':
        return said(() => client.pushBlob(this.#names[op.repo]!, this.#contents.blobs[op.blob]!), created)
      case 'mount': {
        const digest = digestOf(this.#contents.blobs[op.blob]!)
        return said(
          async () => {
            const answer = await client.mount(this.#names[op.repo]!, digest, this.#names[op.from]!)
            if (answer.status === 202) await client.send('DELETE', answer.headers.location!)
            return answer
          },
          ({ status }) => (status === 202 ? 'not there' : created({ status } as Answer)),
        )
      }
      case 'head blob':
        return said(() => client.headBlob(this.#names[op.repo]!, digestOf(this.#contents.blobs[op.blob]!)), there)
      case 'get blob': {
        const bytes = this.#contents.blobs[op.blob]!
        return said(
          () => client.getBlob(this.#names[op.repo]!, digestOf(bytes)),
          (answer) => (answer.status === 200 && !answer.body.equals(bytes) ? 'other bytes' : there(answer)),
        )
      }
      case 'delete blob': {
        const digest = digestOf(this.#contents.blobs[op.blob]!)
        return said(() => client.send('DELETE', `/v2/${this.#names[op.repo]}/blobs/${digest}`), deleted)
      }
      case 'open upload':
        return said(
          async () => {
            const started = await client.startUpload(this.#names[op.repo]!)
            if (started.status === 202) this.#uploads.set(op.slot, { location: started.location, blob: op.blob })
            return started
          },
          ({ status }) => (status === 202 ? 'opened' : `${status}`),
        )
      case 'where is upload':
      case 'append':
      case 'finish upload':
      case 'cancel upload':
        return this.#onUpload(client, op.do, op.slot)
      case 'put manifest': {
        const { bytes, digest, type } = this.#contents.manifests[op.manifest]!
        const path = `/v2/${this.#names[op.repo]}/manifests/${op.tag ?? digest}`
        return said(
          () => client.send('PUT', path, { body: bytes, headers: { 'content-type': type } }),
          (answer) => (answer.status === 404 || answer.status === 400 ? 'refused' : created(answer)),
        )
      }
      case 'get manifest':
      case 'head manifest': {
        const { bytes, digest, type } = this.#contents.manifests[op.manifest]!
        const method = op.do === 'get manifest' ? 'GET' : 'HEAD'
        return said(
          () => client.send(method, `/v2/${this.#names[op.repo]}/manifests/${digest}`),
          (answer) =>
            answer.status === 200 &&
            ((method === 'GET' && !answer.body.equals(bytes)) || answer.headers['content-type'] !== type)
              ? 'other bytes'
              : there(answer),
        )
      }
      case 'delete manifest': {
        const { digest } = this.#contents.manifests[op.manifest]!
        return said(() => client.deleteManifest(this.#names[op.repo]!, digest), deleted)
      }
      case 'list referrers': {
        const { digest } = this.#contents.manifests[op.manifest]!
        return said(
          () => client.send('GET', `/v2/${this.#names[op.repo]}/referrers/${digest}`),
          (answer) => this.#numbers(answer),
        )
      }
      case 'get tag':
        return said(
          () => client.send('GET', `/v2/${this.#names[op.repo]}/manifests/${op.tag}`),
          (answer) => {
            if (answer.status !== 200) return there(answer)
            const found = this.#contents.manifests.findIndex(({ bytes }) => bytes.equals(answer.body))
            return found === -1 ? 'other bytes' : `manifest ${found}`
          },
        )
      case 'delete tag':
        return said(() => client.deleteManifest(this.#names[op.repo]!, op.tag), deleted)
      case 'list tags':
        return said(
          () => client.send('GET', `/v2/${this.#names[op.repo]}/tags/list`),
          (answer) => {
            if (answer.status === 404) return '' // nobody has pushed anything yet
            const { tags } = JSON.parse(answer.body.toString()) as { tags: string[] | null }
            return (tags ?? []).join(' ')
          },
        )
      case 'age':
        return this.#age()
      case 'collect garbage':
        return this.#collect(op)
      case 'restart':
        await this.#fronts.restart(op.fault)
        return 'done'
      case 'kill front': {
        const { haven, client: main } = this.#fronts
        kill(haven, 'front')
        await until('the front after its death', () => isHealthy(haven, main), 60_000)
        return 'done'
      }
    }
  }

  /** Asks where the upload is before it sends anything, as a client does that lost an answer. */
  async #onUpload(client: Client, what: string, slot: number): Promise<Seen> {
    const upload = this.#uploads.get(slot)
    if (!upload) return 'not there'
    const { location, blob } = upload
    const bytes = this.#contents.blobs[blob]!
    let at = 0
    let where = ''
    return said(
      async () => {
        const status = await client.send('GET', location)
        if (status.status !== 204) return status
        at = offsetOf(status)
        where = `at ${at}`
        if (what === 'where is upload') return status
        if (what === 'cancel upload') return client.send('DELETE', location)
        if (what === 'finish upload') return client.finish(location, digestOf(bytes), bytes.subarray(at))
        const end = [1, 2, 3].map((n) => pieceEnd(bytes.length, n)).find((each) => each > at) ?? bytes.length
        return client.patch(location, bytes.subarray(at, end), at)
      },
      ({ status }) => (status === 404 ? 'not there' : status < 300 ? where : `${status}`),
    )
  }

  #numbers(answer: Answer): string {
    if (answer.status !== 200) return `${answer.status}`
    const { manifests } = JSON.parse(answer.body.toString()) as { manifests: { digest: string }[] }
    return manifests
      .map(({ digest }) => this.#contents.manifests.findIndex((each) => each.digest === digest))
      .toSorted((a, b) => a - b)
      .join(' ')
  }

  /** A day goes by. */
  async #age(): Promise<Seen> {
    for (const table of ['blobs', 'blob_links', 'manifests']) {
      await this.#fronts.haven.query(
        `update artifacts.${table} set promised_until = least(promised_until, now() - interval '1 minute')`,
      )
    }
    await this.#fronts.haven.query(`update artifacts.manifests set pushed_at = pushed_at - interval '1 day'`)
    await this.#fronts.haven.query(
      `update artifacts.uploads set updated_at = updated_at - interval '2 days', locked_until = now()`,
    )
    return 'done'
  }

  async #collect({ untagged, killAfterMs }: Extract<Operation, { do: 'collect garbage' }>): Promise<Seen> {
    const { haven, client } = this.#fronts
    const run = await startGarbageCollection(client, { delete_untagged: untagged })
    if (killAfterMs !== null) {
      await sleep(killAfterMs)
      kill(haven, 'back')
    }
    const ended = await garbageCollectionEnded(client, run)
    return ended === 'Success' ? 'done' : ended
  }
}

/** Reliability.md §6: no answer or a 5xx is no word on whether it happened. */
async function said(ask: () => Promise<Answer>, words: (answer: Answer) => string): Promise<Seen> {
  const answer = await ask().catch(() => null)
  return answer === null || answer.status >= 500 ? null : words(answer)
}

const created = ({ status }: Answer) => (status === 201 ? 'created' : `${status}`)
const there = ({ status }: Answer) => (status === 200 ? 'there' : status === 404 ? 'not there' : `${status}`)
const deleted = ({ status }: Answer) =>
  status === 202 ? 'deleted' : status === 404 ? 'not there' : status < 500 ? 'refused' : `${status}`

/** `0-0` says one byte as well as none, and no upload of a plan has a first piece of one byte. */
function offsetOf({ headers }: Answer): number {
  const last = Number(headers.range!.slice(headers.range!.indexOf('-') + 1))
  return last === 0 ? 0 : last + 1
}
