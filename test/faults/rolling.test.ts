import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { titled } from '@haven/testkit/tools'
import { digestOf, type Client } from './client.ts'
import { collectGarbage, compare, newSeed, randomOf, repositories, sleep, startLoad, until } from './harness.ts'
import { check, History } from './history.ts'
import { PatientClient, startWholeRounds, Tally, wholeRepositories } from './rolling-clients.ts'
import { Cluster, stateless, type Pod } from './rolling-cluster.ts'

/** How long processes are killed, and with it whether services are replaced one after another (as asked) or side by side (as `kubectl apply` does). */
const minutes = Number(process.env.FAULTS_MINUTES ?? 0.5)
const long = minutes > 1
const ENDED = ['Success', 'Error', 'Stopped']
const INDEX = 'application/vnd.oci.image.index.v1+json'

const { lack } = Cluster
const test = lack === null ? it : it.skip

describe('two of each service, and sixteen clients who push and pull', () => {
  let cluster: Cluster
  const seed = newSeed('rolling')
  /** All that clients ever did to this installation. */
  const history = new History()

  beforeAll(async () => {
    if (lack !== null) return
    cluster = await Cluster.start({
      DATABASE_POOL: '4',
      HAVEN_TRASH: '0s',
      JOBSERVICE_LEASE: '5s',
      JOBSERVICE_RECONCILE: '1s',
    })
    const client = new PatientClient(cluster.url)
    await until('a first answer', async () => (await client.signIn(repositories)).status === 200, 30_000)
    client.close()
  }, 180_000)

  afterAll(async () => {
    await cluster?.[Symbol.asyncDispose]()
  }, 60_000)

  async function load() {
    const tally = new Tally()
    const client = new PatientClient(cluster.url, tally)
    await client.signIn([...repositories, ...wholeRepositories])
    const loads = [
      startLoad(client, seed, { actors: 12, history }),
      startWholeRounds(client, seed, 4, history),
      startJobs(client),
    ]
    return {
      tally,
      /** What went wrong for good. */
      async stop(): Promise<string[]> {
        const stopped = await Promise.allSettled(loads.map((each) => each.stop()))
        client.close()
        return [
          ...stopped.filter((each) => each.status === 'rejected').map(({ reason }) => String(reason)),
          ...history.operations
            .filter(({ result }) => result !== 'ok')
            .map(
              ({ kind, repository, subject, status, said }) => `${kind} ${repository} ${subject}: ${status} ${said}`,
            ),
        ]
      },
    }
  }

  /** All acknowledged is there and as it was pushed, by either door; the bucket holds what is recorded and nothing else. */
  async function expectNothingLost() {
    const doors = cluster.of('proxy').map(({ url }) => new PatientClient(url))
    for (const door of doors) await door.signIn([...repositories, ...wholeRepositories])
    expect(await check(history, doors)).toEqual([])
    await cluster.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
    let wrong: string[] = []
    const agree = async () => {
      expect(await collectGarbage(doors[0]!)).toBe('Success')
      const { objects, unfinished } = cluster.contents()
      wrong = [...(await compare((sql) => cluster.query(sql), objects, [])), ...unfinished]
      return wrong.length === 0
    }
    await until('the bucket agrees with the record', agree, 60_000).catch(() => expect(wrong).toEqual([]))
    for (const door of doors) door.close()
  }

  test(
    titled('are replaced one by one: no request fails, none is sent twice, each process exits with 0 (I22, F46)', lack),
    async () => {
      const running = await load()
      await sleep(2000)
      const codes: (number | string)[] = []
      const replace = async (name: (typeof stateless)[number]) => {
        for (const old of cluster.of(name)) {
          await cluster.add(name)
          codes.push(await cluster.remove(old))
        }
      }
      if (long) for (const name of stateless) await replace(name)
      else await Promise.all(stateless.map(replace))
      await sleep(2000)
      const failed = await running.stop()
      process.stderr.write(`replaced ${codes.length}: ${running.tally}; failed ${failed.length}\n`)
      expect(failed).toEqual([])
      expect(codes).toEqual(codes.map(() => 0))
      expect([...running.tally.retried]).toEqual([])
      expect(running.tally.requests).toBeGreaterThan(500)
      await expectNothingLost()
    },
    900_000,
  )

  test(
    titled('are killed at random: clients that try again get through, and nothing is lost (I1-I5, F02)', lack),
    async () => {
      const random = randomOf(seed)
      const running = await load()
      const kills = new Map<string, number>()
      const down = new Set<Pod>()
      const starting: Promise<void>[] = []
      const endsAt = performance.now() + minutes * 60_000
      while (performance.now() < endsAt) {
        await sleep(1000 + random(3000))
        // The other one of its kind serves meanwhile.
        const whole = stateless.filter((name) => cluster.of(name).every((pod) => pod.ready && !down.has(pod)))
        const pod = cluster.of(whole[random(whole.length)]!)[random(2)]
        if (pod === undefined) continue
        kills.set(pod.name, (kills.get(pod.name) ?? 0) + 1)
        down.add(pod)
        await pod.kill()
        starting.push(again(pod, 500 + random(1500)).finally(() => down.delete(pod)))
      }
      await Promise.all(starting)
      const failed = await running.stop()
      const count = [...kills.values()].reduce((sum, each) => sum + each, 0)
      const each = [...kills].map(([name, times]) => `${name} ${times}`).join(', ')
      process.stderr.write(`killed ${count} in ${minutes} min (${each}): ${running.tally}; failed ${failed.length}\n`)
      expect(failed).toEqual([])
      expect(count).toBeGreaterThan(minutes * 8)
      await expectNothingLost()
    },
    minutes * 60_000 + 600_000,
  )
})

async function again(pod: Pod, afterMs: number): Promise<void> {
  await sleep(afterMs)
  await pod.start()
}

/** Somebody who collects garbage, and deletes thirty artifacts at once, over and over. `stop` throws what did not end as it should. */
function startJobs(client: Client): { stop(): Promise<void> } {
  let stopping = false
  const repeat = async (work: () => Promise<void>) => {
    while (!stopping) {
      await work()
      await sleep(1000)
    }
  }
  const running = [
    repeat(() => garbage(client)),
    repeat(() => manyAtOnce(client, `bulk-${randomBytes(4).toString('hex')}`)),
  ]
  return {
    async stop() {
      stopping = true
      await Promise.all(running)
    },
  }
}

/** However many processes die under it, it ends. */
async function garbage(client: Client): Promise<void> {
  const headers = { 'content-type': 'application/json', authorization: client.basic }
  const body = Buffer.from(JSON.stringify({ schedule: { type: 'Manual' }, parameters: { delete_untagged: false } }))
  // Asked for again after a lost answer it says that one is under way.
  const begun = await client.send('POST', '/api/v2.0/system/gc/schedule', { headers, body })
  if (begun.status !== 201 && begun.status !== 409)
    throw new Error(`no garbage collection: ${begun.status} ${begun.body}`)
  const ended = async () => {
    const [last] = await client.api<{ job_status: string }[]>('GET', '/system/gc?page_size=1&sort=-creation_time')
    return ENDED.includes(last!.job_status)
  }
  await until('garbage collection ends', ended, 120_000)
}

async function manyAtOnce(client: Client, repository: string): Promise<void> {
  const manifests = Array.from({ length: 30 }, (_, n) =>
    Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], annotations: { n: `${n}` } })),
  )
  const path = (manifest: Buffer) => `/v2/library/${repository}/manifests/${digestOf(manifest)}`
  const wrong = (what: string, { status, body }: { status: number; body: Buffer }) =>
    new Error(`many at once, ${what}: ${status} ${body}`)
  const headers = { authorization: client.basic }
  for (const body of manifests) {
    const put = await client.send('PUT', path(body), { body, headers: { ...headers, 'content-type': INDEX } })
    if (put.status !== 201) throw wrong('push', put)
  }
  const body = Buffer.from(JSON.stringify({ kind: 'delete', selector: { project: 'library', repository } }))
  const begun = await client.send('POST', '/api/haven/v1/operations', {
    headers: { ...headers, 'content-type': 'application/json', 'idempotency-key': randomUUID() },
    body,
  })
  if (begun.status > 201) throw wrong('begin', begun)
  const { id } = JSON.parse(begun.body.toString()) as { id: number }
  let state = ''
  const ended = async () => {
    const answer = await client.send('GET', `/api/haven/v1/operations/${id}`, { headers })
    state = (JSON.parse(answer.body.toString()) as { state: string }).state
    return ENDED.includes(state)
  }
  await until('many at once: it ends', ended, 120_000)
  for (const manifest of manifests) {
    const there = await client.send('GET', path(manifest), { headers })
    if (there.status !== 404) throw wrong(`${state}, and one is there`, there)
  }
}
