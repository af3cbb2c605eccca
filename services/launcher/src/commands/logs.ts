import { createReadStream, existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { problems } from '@haven/errors'
import { Home } from '../home.ts'
import { serviceNames } from '../targets.ts'

const TAIL_BYTES = 64 * 1024
const SUFFIX = '.log'

/**
 * Prints the end of each log, or of those of one name. A process's own holds what it said before and after the log collector took its lines;
 * a service's, below `services`, what the collector took. @throws Problem naming the logs there are.
 */
export async function logs(folder: string, name: string | undefined, print: (line: string) => void): Promise<void> {
  const home = new Home(folder)
  const all = [...logsIn(home.logs, ''), ...logsIn(home.serviceLogs, 'services/')]
  const wanted = name === undefined ? all : all.filter((log) => log.name === name)
  if (wanted.length === 0 && (serviceNames as readonly (string | undefined)[]).includes(name) && all.length > 0) {
    print(`${name} has written no line yet`)
    return
  }
  if (wanted.length === 0) {
    const known = [...new Set(all.map((log) => log.name))].join(', ')
    throw problems.badUsage({ message: known ? `no such log; there are ${known}` : `no logs below ${home.logs}` })
  }
  for (const log of wanted) {
    print(`==> ${log.title} <==`)
    await printTail(log.file)
  }
}

/** Those that are being written; what was rotated away has a time in its name. */
function logsIn(folder: string, title: string) {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((file) => file.endsWith(SUFFIX) && file.indexOf('.') === file.length - SUFFIX.length)
    .sort()
    .map((file) => ({ name: file.slice(0, -SUFFIX.length), title: title + file, file: join(folder, file) }))
}

async function printTail(file: string) {
  const { size } = statSync(file)
  for await (const chunk of createReadStream(file, { start: Math.max(0, size - TAIL_BYTES) }))
    process.stdout.write(chunk)
}
