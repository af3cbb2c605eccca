import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, expect, it } from '@jest/globals'
import { placeProgram } from './program.ts'

const folder = mkdtempSync(join(tmpdir(), 'haven-program-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

it('places one program, whole, however many want it at once, and takes away that of earlier sources', async () => {
  mkdirSync(join(folder, 'of-earlier-sources'))
  utimesSync(join(folder, 'of-earlier-sources'), 0, 0)
  const entries = await Promise.all([placeProgram(folder, 'the log'), placeProgram(folder, 'the log')])
  expect(new Set([...entries, await placeProgram(folder, 'the log')]).size).toBe(1)
  expect(existsSync(entries[0])).toBe(true)
  expect(existsSync(join(dirname(entries[0]), 'query-compiler.wasm'))).toBe(true)
  expect(readdirSync(folder)).toHaveLength(1)
})
