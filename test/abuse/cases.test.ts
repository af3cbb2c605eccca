import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from '@jest/globals'

const root = fileURLToPath(new URL('../..', import.meta.url))
const CASES = Array.from({ length: 96 }, (_, i) => `A${String(i + 1).padStart(2, '0')}`)

/** Ids that stand in test files outside of comments: that is, in names of tests. */
function carried(): Set<string> {
  const files = globSync('{proto,services,portal,test}/**/*.test.ts', { cwd: root, exclude: ['**/node_modules'] })
  const codes = files.map((file) =>
    readFileSync(join(root, file), 'utf8').replaceAll(/(?:^|\s)(?:\/\/|\/\*|\* ).*$/gm, ''),
  )
  return new Set(codes.flatMap((code) => [...code.matchAll(/\bA\d\d\b/g)].map(([id]) => id)))
}

const waiting = new Map(
  readFileSync(new URL('waiting.txt', import.meta.url), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [, id, issue, part, what] = /^(A\d\d) #(\d+) (all|part): (.+)$/.exec(line) ?? []
      if (!id) throw new Error(`not a line of this list: ${line}`)
      return [id, { issue: Number(issue), part, what }] as const
    }),
)

describe('the abuse cases', () => {
  const ids = carried()

  it('are each carried by the name of a test, or wait for what they attack', () => {
    expect(CASES.filter((id) => !ids.has(id) && !waiting.has(id))).toEqual([])
  })

  it('that wait as a whole are carried by no test yet, and those that wait in part are', () => {
    expect([...waiting].filter(([id, { part }]) => ids.has(id) !== (part === 'part')).map(([id]) => id)).toEqual([])
  })

  it('are known by their ids', () => {
    expect([...ids, ...waiting.keys()].filter((id) => !CASES.includes(id))).toEqual([])
  })
})
