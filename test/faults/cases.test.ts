import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from '@jest/globals'

const root = fileURLToPath(new URL('../..', import.meta.url))
const upTo = (letter: string, from: number, to: number, digits: number) =>
  Array.from({ length: to - from + 1 }, (_, n) => letter + String(from + n).padStart(digits, '0'))

/** Ids that stand in test files outside of comments: that is, in names of tests. */
function carried(pattern: string, id: RegExp): Set<string> {
  const files = globSync(pattern, { cwd: root, exclude: ['**/node_modules', 'test/faults/cases.test.ts'] })
  const codes = files.map((file) =>
    readFileSync(join(root, file), 'utf8').replaceAll(/(?:^|\s)(?:\/\/|\/\*|\* ).*$/gm, ''),
  )
  return new Set(codes.flatMap((code) => [...code.matchAll(id)].map(([found]) => found)))
}

it('each fault of a push, of Postgres, of the store and of the disk is carried by the name of a test', () => {
  const there = carried('{services,test}/**/*.test.ts', /\bF\d\d\b/g)
  expect([...upTo('F', 1, 17, 2), ...upTo('F', 27, 36, 2)].filter((id) => !there.has(id))).toEqual([])
})

// The design rules of the threat model are called R as well: only the tests of garbage collection mean races.
it('each race of garbage collection is carried by the name of a test', () => {
  const there = carried('services/lib/artifacts/src/gc/*.test.ts', /\bR\d{1,2}\b/g)
  expect(upTo('R', 1, 12, 1).filter((id) => !there.has(id))).toEqual([])
})
