import { readdirSync, readFileSync } from 'node:fs'

type ProcessRow = { pid: number; parent: number }

/** CPU seconds that a process tree has used, thread by thread from the scheduler, and its memory. Processes that ended meanwhile are not counted. */
export function usageOf(roots: readonly number[]): { cpuSeconds: number; rssMiB: number } {
  let nanoseconds = 0
  let rssKiB = 0
  for (const pid of treeOf(roots)) {
    nanoseconds += threadsOf(pid).reduce((sum, file) => sum + Number(read(file)?.split(' ')[0] ?? 0), 0)
    rssKiB += Number(/^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? 0)
  }
  return { cpuSeconds: nanoseconds / 1e9, rssMiB: rssKiB / 1024 }
}

/** CPU seconds of the whole machine: what was used besides the subjects is noise. */
export function machineCpuSeconds(): number {
  const [user = 0, nice = 0, system = 0] = read('/proc/stat')!.split('\n')[0]!.split(/\s+/).slice(1).map(Number)
  return (user + nice + system) / 100
}

function treeOf(roots: readonly number[]): number[] {
  const rows = processes()
  const found = new Set(roots)
  for (let grown = true; grown;) {
    grown = false
    for (const { pid, parent } of rows) {
      if (found.has(parent) && !found.has(pid)) {
        found.add(pid)
        grown = true
      }
    }
  }
  return [...found]
}

function processes(): ProcessRow[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const stat = read(`/proc/${name}/stat`)
      // The name in parentheses may hold anything, so the fields are counted from its end.
      const parent = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1]
      return parent === undefined ? [] : [{ pid: Number(name), parent: Number(parent) }]
    })
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}/schedstat`)
  } catch {
    return [] // it ended
  }
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null // it ended
  }
}
