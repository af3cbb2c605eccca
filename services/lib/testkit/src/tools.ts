import { accessSync, constants } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

/** Where a real client or server is: TEST_TOOLS, the cache that `.ci/tools` fills, or PATH. Null when it is not installed. */
export function findTool(name: string): string | null {
  const folders = [
    process.env.TEST_TOOLS,
    join(homedir(), '.cache/haven/tools'),
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/sbin',
  ]
  for (const folder of folders) {
    if (!folder) continue
    try {
      accessSync(join(folder, name), constants.X_OK)
      return join(folder, name)
    } catch {
      continue
    }
  }
  return null
}

/**
 * What a test needs and this machine lacks, as a reason to skip; null when all is there. With HAVEN_SKIP_NOTHING=1 (CI) a lack is an error.
 */
export function lacking(...names: string[]): string | null {
  const missing = names.filter((name) => findTool(name) === null)
  if (missing.length === 0) return null
  const reason = `needs ${missing.join(', ')}; .ci/tools installs it`
  if (process.env.HAVEN_SKIP_NOTHING === '1') throw new Error(reason)
  return reason
}

/** The title of a test or suite, with the reason why it is skipped. */
export const titled = (title: string, lack: string | null): string => (lack ? `${title} (skipped: ${lack})` : title)
