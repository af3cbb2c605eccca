import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { must } from '../clients/tools.ts'
import { root, services } from './images.ts'

/** Where an image of ours gets its tag, by file: each place, and how many there are. */
const places = {
  'package.json': [/^  "version": "(.*)",$/gm, 1],
  'deploy/images/bake.hcl': [/variable "HAVEN_VERSION" \{\n  default = "(.*)"/g, 1],
  'deploy/compose/compose.yaml': [
    /image: \$\{HAVEN_IMAGES:-haven\}\/[a-z-]+:\$\{HAVEN_VERSION:-(.*)\}/g,
    services.length,
  ],
  'deploy/kubernetes/base/kustomization.yaml': [/newTag: &version (\S+) /g, 1],
  'deploy/kubernetes/README.md': [/newTag: (\S+) /g, 1],
  'deploy/README.md': [/HAVEN_VERSION=([^`]+)`|haven\/<service>:([^`]+)`/g, 2],
} as const

const versionsIn = (folder: string) =>
  Object.entries(places).map(([file, [place]]) => {
    const found = [...readFileSync(join(folder, file), 'utf8').matchAll(place)].map((match) => match[1] ?? match[2])
    return [file, found]
  })
const everywhere = (version: string) =>
  Object.entries(places).map(([file, [, count]]) => [file, Array<string>(count).fill(version)])

describe('the version', () => {
  it('is one, wherever an image of ours is named', async () => {
    const version = (await must('make', ['-s', 'version'], { cwd: root, env: { MAKEFLAGS: '' } })).trim()
    expect(version).toMatch(/^\d+\.\d+\.\d+$/)
    expect(versionsIn(root)).toEqual(everywhere(version))
  })

  it('is set in all places at once', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'haven-version-'))
    try {
      for (const file of ['Makefile', ...Object.keys(places)]) cpSync(join(root, file), join(folder, file))
      const set = (to: string) => must('make', ['-s', 'version', `TO=${to}`], { cwd: folder, env: { MAKEFLAGS: '' } })
      await set('9.8.7-rc.1')
      expect(versionsIn(folder)).toEqual(everywhere('9.8.7-rc.1'))
      await set('9.8.7')
      expect(versionsIn(folder)).toEqual(everywhere('9.8.7'))
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
