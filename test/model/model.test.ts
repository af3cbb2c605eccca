import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { Client, digestOf } from '../faults/client.ts'
import { collectGarbage, disagreements, randomOf } from '../faults/harness.ts'
import { Contents, Fronts, RegistryDriver, type Driver } from './driver.ts'
import type { Operation, Plan } from './model.ts'
import {
  faultPoints,
  makePlan,
  makeSteps,
  REPOSITORIES,
  run,
  shrink,
  told,
  type Shape,
  type Step,
} from './sequences.ts'

/** MODEL_SECONDS=3600 for a night. One more sequence is begun as long as this is not over. */
const SECONDS = Number(process.env.MODEL_SECONDS ?? 25)
const SEED = Number(process.env.MODEL_SEED ?? Math.floor(Math.random() * 2 ** 31))
const SHRINK_MS = Number(process.env.MODEL_SHRINK_SECONDS ?? 30) * 1000

const quiet: Shape = { steps: 80, crashes: 0, faults: [] }
const broken: Shape = { steps: 60, crashes: 4, faults: faultPoints }

let haven: HavenInstallation
let client: Client
let fronts: Fronts

beforeAll(async () => {
  const env = {
    REGISTRY_UPLOAD_LEASE: '2s',
    HAVEN_TRASH: '0s',
    JOBSERVICE_LEASE: '5s',
    JOBSERVICE_RECONCILE: '1s',
  }
  haven = await startHaven({ env })
  client = new Client(haven.url)
  fronts = new Fronts(haven, client)
}, 120_000)

afterAll(async () => {
  await fronts?.[Symbol.asyncDispose]()
  client?.close()
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

type Wrap = (driver: Driver, about: { plan: Plan; contents: Contents }) => Driver
let runs = 0

/** Carries a sequence out in repositories and with contents that no other run has. */
async function runOnce(plan: Plan, steps: readonly Step[], wrap: Wrap = (driver) => driver) {
  const salt = `${SEED}-${runs++}`
  const names = Array.from({ length: REPOSITORIES }, (_, n) => `library/run-${salt}-${n}`)
  // In each run anew: a token does not live for a night.
  expect((await client.signIn(names)).status).toBe(200)
  const contents = new Contents(plan, salt)
  const driver = wrap(new RegistryDriver(fronts, contents, names), { plan, contents })
  return run(plan, steps, driver)
}

/** Null, or what is wrong and how little of the sequence is needed for it. */
async function findViolation(seed: number, shape: Shape, wrap?: Wrap): Promise<string | null> {
  const random = randomOf(seed)
  const plan = makePlan(random)
  const steps = makeSteps(random, plan, shape)
  const violation = await runOnce(plan, steps, wrap)
  if (!violation) return null
  const failing = steps.slice(0, violation.at + 1)
  const shortest = await shrink(failing, async (some) => (await runOnce(plan, some, wrap)) !== null, SHRINK_MS)
  const { saw, expected, step } = violation
  return [
    `seed ${seed}: step ${violation.at}, ${JSON.stringify(step.op)}, answered "${saw}" and not ${expected.map((each) => `"${each}"`).join(' or ')}`,
    `plan: ${JSON.stringify(plan.manifests)}`,
    told(shortest),
  ].join('\n')
}

describe('the registry does what the model says (I1 to I6, I8, I11)', () => {
  it(
    'through random sequences, in peace and with processes that die',
    async () => {
      process.stderr.write(`model: MODEL_SEED=${SEED}, ${SECONDS} s\n`)
      const endsAt = performance.now() + SECONDS * 1000
      let sequences = 0
      do {
        const violation = await findViolation(SEED + sequences, sequences % 3 === 2 ? broken : quiet)
        expect(violation).toBeNull()
        sequences++
      } while (performance.now() < endsAt || sequences < 3)
      process.stderr.write(`model: ${sequences} sequences\n`)
      // After all of them, and a day later: no upload, no object without a record, no record without its object.
      await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
      expect(await collectGarbage(client)).toBe('Success')
      expect(await haven.query('select id from artifacts.uploads')).toEqual([])
      expect(await disagreements(haven)).toEqual([])
    },
    (SECONDS + 240) * 1000,
  )
})

describe('the model knows', () => {
  it('that housekeeping ends an upload of two days ago whenever it comes by, and not one of today', async () => {
    const plan = makePlan(randomOf(SEED))
    const append = { do: 'append' as const, slot: 0 }
    const open = { do: 'open upload' as const, slot: 0, repo: 0, blob: 1 }
    const ended: Wrap = (driver) => ({
      async carryOut(op, through) {
        if (op === append) await haven.query('delete from artifacts.uploads')
        return driver.carryOut(op, through)
      },
    })
    const steps = (...ops: Operation[]) => ops.map((op) => ({ op, through: 0 as const }))
    expect(await runOnce(plan, steps(open, { do: 'age' }, append), ended)).toBeNull()
    expect(await runOnce(plan, steps(open, append), ended)).toMatchObject({ expected: ['at 0'], saw: 'not there' })
  })
})

/** A registry with a planted fault must not pass: without these, a green run counts for nothing (reliability.md §6). */
describe('the model sees', () => {
  /** The first violation of a few random sequences. */
  async function expectSeen(shape: Shape, wrap: Wrap): Promise<string> {
    for (let n = 0; n < 12; n++) {
      const random = randomOf(SEED + 1000 + n)
      const plan = makePlan(random)
      const violation = await runOnce(plan, makeSteps(random, plan, shape), wrap)
      if (violation) return `${violation.step.op.do}: ${violation.saw}, not ${violation.expected.join(' or ')}`
    }
    return 'nothing'
  }

  it('an object that was dropped', async () => {
    const dropping: Wrap = (driver, { contents }) => ({
      async carryOut(op, through) {
        const seen = await driver.carryOut(op, through)
        if (op.do === 'push blob' && op.blob === 1) {
          const rows = await haven.query<{ key: string }>(
            'select l.key from artifacts.blobs b join artifacts.blob_locations l on l.blob_id = b.id where b.digest = $1',
            [digestOf(contents.blobs[1]!)],
          )
          for (const { key } of rows) rmSync(join(haven.home, 'blobs', key), { force: true })
        }
        // What cannot be read is no answer, and no answer is never wrong: here it is what we look for.
        return seen === null && op.do === 'get blob' ? 'unreadable' : seen
      },
    })
    expect(await expectSeen(quiet, dropping)).toMatch(/^get blob: (?:unreadable|not there), not there/)
  }, 120_000)

  it('a registry that answers before it has committed', async () => {
    const hasty: Wrap = (driver) => ({
      async carryOut(op, through) {
        const seen = await driver.carryOut(op, through)
        return seen === null && op.do === 'put manifest' ? 'created' : seen
      },
    })
    expect(await expectSeen({ ...broken, crashes: 8, faults: ['manifest.beforeDb'] }, hasty)).toMatch(
      /manifest|tag|referrers/,
    )
  }, 180_000)

  it('a HEAD that promises nothing', async () => {
    const promises = async (digest: string) =>
      haven.query<{ table: string; id: string; until: string }>(
        `select 'blobs' as table, b.id::text, b.promised_until::text as until from artifacts.blobs b where b.digest = $1
         union all select 'blob_links', k.repository_id || ' ' || k.blob_id, k.promised_until::text
           from artifacts.blob_links k join artifacts.blobs b on b.id = k.blob_id where b.digest = $1`,
        [digest],
      )
    const forgetful: Wrap = (driver, { contents }) => ({
      async carryOut(op, through) {
        if (op.do !== 'head blob') return driver.carryOut(op, through)
        const before = await promises(digestOf(contents.blobs[op.blob]!))
        const seen = await driver.carryOut(op, through)
        for (const { table, id, until } of before) {
          const where = table === 'blobs' ? 'id::text = $2' : `repository_id || ' ' || blob_id = $2`
          await haven.query(`update artifacts.${table} set promised_until = $1 where ${where}`, [until, id])
        }
        return seen
      },
    })
    const plan = makePlan(randomOf(SEED))
    const at = { repo: 0, blob: 1 }
    const steps = [
      { do: 'push blob' as const, ...at },
      { do: 'age' as const },
      { do: 'head blob' as const, ...at },
      { do: 'collect garbage' as const, untagged: false, killAfterMs: null },
      { do: 'get blob' as const, ...at },
    ].map((op) => ({ op, through: 0 as const }))
    expect(await runOnce(plan, steps)).toBeNull()
    expect(await runOnce(plan, steps, forgetful)).toMatchObject({ at: 4, expected: ['there'], saw: 'not there' })
  }, 180_000)
})
