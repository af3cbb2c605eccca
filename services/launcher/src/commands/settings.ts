import { describeConfig } from '@haven/config'
import { definitions } from '../definitions.ts'

/** Prints every setting, with its default and meaning, as a page of Markdown. */
export function printSettings(print: (line: string) => void): void {
  print('# Settings')
  for (const [reader, definition] of Object.entries(definitions)) {
    print(`\n## Of ${reader}\n`)
    print(describeConfig(definition))
  }
}
