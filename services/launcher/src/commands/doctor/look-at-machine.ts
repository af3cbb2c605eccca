import { existsSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { failure, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'
import { isOlder, oldest } from './oldest.ts'

const MIB = 1024 * 1024
/** Below, Haven does not start. */
const TOO_LITTLE_MIB = 256
const LITTLE_MIB = 1024
const FEW_FILES = 10_000

/** Node, whether the installation runs, and the disks that it writes to. */
export async function lookAtMachine(ground: Ground): Promise<Look[]> {
  return [node(), ...installation(ground), ...(await Promise.all(folders(ground).map(disk)))]
}

function node(): Look {
  const version = process.versions.node
  const findings = isOlder(version, oldest.node)
    ? [failure('node.old', `Node is ${version}`, `install Node ${oldest.node} or a newer one`)]
    : []
  return { at: 'Node', said: version, findings }
}

function installation({ home, state, isRunning, config }: Ground): Look[] {
  if (home === null) return []
  const at = 'installation'
  if (state === null) return [{ at, said: `not running below ${config.home}; make up starts it`, findings: [] }]
  if (isRunning) return [{ at, said: `running at ${state.address}`, findings: [] }]
  const findings: Finding[] = [
    state.phase === 'failed'
      ? failure('installation.failed', `it did not start: ${state.detail}`, 'mend that, then: make up')
      : failure('installation.ended', 'its supervisor has ended without stopping it', 'see make logs, then: make up'),
  ]
  return [{ at, said: `not running below ${config.home}`, findings }]
}

const folders = ({ home, env }: Ground): string[] => [
  ...new Set(
    [home?.folder, env.STORAGE_PATH, env.LOG_COLLECTOR_PATH].filter(
      (folder) => folder !== undefined && folder !== '' && existsSync(folder),
    ) as string[],
  ),
]

async function disk(folder: string): Promise<Look> {
  const { bavail, bsize, ffree, files } = await statfs(folder)
  const freeMiB = Math.floor((bavail * bsize) / MIB)
  const room = 'make room, or move it to a larger disk'
  const findings: Finding[] = []
  if (freeMiB < TOO_LITTLE_MIB) {
    findings.push(failure('disk.full', `only ${freeMiB} MiB are free below ${folder}`, room))
  } else if (freeMiB < LITTLE_MIB) {
    findings.push(warning('disk.low', `only ${freeMiB} MiB are free below ${folder}`, room))
  }
  // Of 0 files a file system says that it does not count them.
  if (files > 0 && ffree < FEW_FILES) {
    findings.push(failure('disk.inodes', `only ${ffree} more files fit below ${folder}`, room))
  }
  return { at: 'disk', said: `${freeMiB} MiB free below ${folder}`, findings }
}
