import { expect, it } from '@jest/globals'
import { serviceNames } from '../targets.ts'
import { printSettings } from './settings.ts'

it('prints what every service reads, with its default and meaning', () => {
  const lines: string[] = []
  printSettings((line) => lines.push(line))
  const page = lines.join('\n')
  for (const name of serviceNames) expect(page).toContain(`## Of ${name}\n`)
  expect(page).toMatch(/^\| `HAVEN_HOME` \| .* \| `\.haven` \| The folder of this installation/m)
  expect(page).toMatch(/^\| `EXPORTER_CACHE` \| a duration .* \| `15s` \|/m)
})
