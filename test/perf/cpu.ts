import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

type ProcessRow = { pid: number; parent: number }

/** CPU seconds that process trees have used, thread by thread from the scheduler. Threads that ended are not in it: for differences over a short time. */
export function cpuSecondsOf(roots: readonly number[]): number {
  let nanoseconds = 0
  for (const pid of treeOf(roots)) {
    for (const file of threadsOf(pid)) nanoseconds += Number(read(file)?.split(' ')[0] ?? 0)
  }
  return nanoseconds / 1e9
}

/** CPU seconds of the programs that this process started and that have ended. */
export function childrenCpuSeconds(): number {
  const stat = read('/proc/self/stat')!
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[13]) + Number(fields[14])) / 100
}

/** CPU seconds of this process. */
export function ownCpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/** Makes the peak of each process's memory begin again (proc(5), clear_refs). */
export function forgetPeaks(roots: readonly number[]): void {
  for (const pid of treeOf(roots)) writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

/** Peak memory in MiB since `forgetPeaks`, summed over process trees; a page that several processes share counts in each. */
export function peakMemoryMiB(roots: readonly number[]): number {
  let kiB = 0
  for (const pid of treeOf(roots)) kiB += Number(/^VmHWM:\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1] ?? 0)
  return kiB / 1024
}

/** Memory of process trees in MiB. `rss` counts a page in each process that has it, `pss` divides it among them (proc(5), smaps_rollup). */
export type Memory = { rssMiB: number; pssMiB: number }

export function memoryOf(roots: readonly number[], except: readonly number[] = []): Memory {
  const without = new Set(treeOf(except))
  let [rss, pss] = [0, 0]
  for (const pid of treeOf(roots)) {
    if (without.has(pid)) continue
    const rollup = read(`/proc/${pid}/smaps_rollup`) ?? ''
    rss += Number(/^Rss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0)
    pss += Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0)
  }
  return { rssMiB: rss / 1024, pssMiB: pss / 1024 }
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
