import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { parse } from 'yaml'
import { differencesOf, isDeliberate, readRecording, type Deliberate, type Recorded } from './recording.ts'

const GROUPS = [
  'anonymous',
  'errors',
  'session',
  'users',
  'projects',
  'members',
  'labels',
  'robots',
  'repositories',
  'artifacts',
  'v2',
]
/** Those about people and what they may do. */
const ACCOUNTS = new Set(['anonymous', 'errors', 'session', 'users', 'projects', 'members', 'labels', 'robots'])
const NOT_SERVED_YET = 501

/** Folder with the answers of a real Harbor and the program that asks the same of us. */
const folder = process.env.HARBOR_ANSWERS
const deliberate = parse(readFileSync(new URL('differences.yaml', import.meta.url), 'utf8')) as Deliberate[]

describe('the file of deliberate differences', () => {
  it('gives a reason for each line', () => {
    for (const line of deliberate) {
      expect(line).toEqual({
        name: expect.stringMatching(/^(?:\*|[a-z0-9]+\/.+)$/) as unknown,
        what: expect.stringMatching(/^(?:\*$|status [\d*]|header |shape [-+*])/) as unknown,
        reason: expect.stringMatching(/.{20,}/) as unknown,
      })
    }
  })

  it('covers what it names and nothing else', () => {
    const lines = [{ name: 'errors/*', what: 'header link', reason: '' }]
    expect(isDeliberate('errors/page', 'header link', lines)).toBe(true)
    expect(isDeliberate('users/page', 'header link', lines)).toBe(false)
    expect(isDeliberate('errors/page', 'header links', lines)).toBe(false)
  })
})

describe('the comparison', () => {
  const recorded = (more: Partial<Recorded>): Recorded => ({
    name: 'g/n',
    group: 'g',
    method: 'GET',
    path: '/',
    status: 200,
    headers: {},
    body: null,
    ...more,
  })

  it('sees a status, a header, a field that is missing and one too many', () => {
    expect(differencesOf(recorded({}), recorded({ status: 404 }))).toEqual(['status 200 -> 404'])
    const theirs = recorded({ headers: { link: 'a' }, body: { json: [{ id: '<id>', name: 'x' }] } })
    expect(differencesOf(theirs, theirs)).toEqual([])
    expect(differencesOf(theirs, recorded({ body: { json: [{ id: 7, other: 'x' }] } }))).toEqual([
      'header link',
      'shape -.json[].name:string',
      'shape +.json[].other:string',
    ])
  })
})

const title = 'answers as a real Harbor does'
if (folder === undefined) {
  describe(title, () => {
    it.skip('needs HARBOR_ANSWERS, the folder of a recording of a real Harbor', () => undefined)
  })
} else {
  describe(title, () => {
    let haven: HavenInstallation
    let workFolder: string
    const theirs = readRecording(join(folder, 'harbor-2.16.jsonl')).filter((line) => GROUPS.includes(line.group))
    const ours = new Map<string, Recorded>()

    beforeAll(async () => {
      haven = await startHaven()
      workFolder = mkdtempSync(join(tmpdir(), 'haven-answers-'))
      const out = join(workFolder, 'ours.jsonl')
      const program = join(folder, 'record.py')
      await run('python3', [program, haven.url, out, '--admin-password', ADMIN_PASSWORD, '--only', GROUPS.join(',')])
      for (const line of readRecording(out)) ours.set(line.name, line)
    }, 300_000)
    afterAll(async () => {
      await haven?.[Symbol.asyncDispose]()
      if (workFolder) rmSync(workFolder, { recursive: true, force: true })
    })

    it.each(GROUPS)('in the group %s, but for what is meant to differ', (group) => {
      const unexplained = theirs
        .filter((line) => line.group === group)
        .flatMap((line) => {
          const mine = ours.get(line.name)
          if (!mine) return [`${line.name}: was not asked`]
          if (mine.status === NOT_SERVED_YET) return []
          return differencesOf(line, mine)
            .filter((difference) => !isDeliberate(line.name, difference, deliberate))
            .map((difference) => `${line.name}: ${difference}`)
        })
      expect(unexplained).toEqual([])
    })

    it('in values and texts, where status, headers and shape are the same', () => {
      const alike = theirs.flatMap((line) => {
        const mine = ours.get(line.name)
        return mine && ACCOUNTS.has(line.group) && differencesOf(line, mine).length === 0 ? [{ line, mine }] : []
      })
      const others = alike
        .filter(({ line, mine }) => !isDeepStrictEqual(line.body, mine.body))
        .map(({ line }) => line.name)
      expect(alike.length).toBeGreaterThan(0)
      expect([others.length / alike.length <= 0.02, ...others]).toEqual([true, ...others])
    })
  })
}

function run(program: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let errors = ''
    child.stderr.on('data', (data: Buffer) => (errors += data.toString()))
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} ended with ${code}:\n${errors}`)),
    )
  })
}
