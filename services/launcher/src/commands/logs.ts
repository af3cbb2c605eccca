import { createReadStream, existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { problems } from '@haven/errors'
import { Home } from '../home.ts'

const TAIL_BYTES = 64 * 1024

/** Prints the end of each process's log, or of the one named. @throws Problem naming the logs there are. */
export async function logs(folder: string, name: string | undefined, print: (line: string) => void): Promise<void> {
  const home = new Home(folder)
  const all = existsSync(home.logs) ? readdirSync(home.logs).filter((file) => file.endsWith('.log')) : []
  const wanted = name === undefined ? all : all.filter((file) => file === `${name}.log`)
  if (wanted.length === 0) {
    const known = all.map((file) => file.replace(/\.log$/, '')).join(', ')
    throw problems.badUsage({ message: known ? `no such log; there are ${known}` : `no logs below ${home.logs}` })
  }
  for (const file of wanted) {
    print(`==> ${file} <==`)
    await printTail(join(home.logs, file))
  }
}

async function printTail(file: string) {
  const { size } = statSync(file)
  for await (const chunk of createReadStream(file, { start: Math.max(0, size - TAIL_BYTES) }))
    process.stdout.write(chunk)
}
