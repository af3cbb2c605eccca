import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { problems } from '@haven/errors'

/** What an installation keeps to itself: one secret for each pair of services, and the key that seals secrets at rest. */
export type InstallationSecrets = {
  HAVEN_ENCRYPTION_KEY: string
  HAVEN_PROXY_SECRET: string
  CORE_SECRET: string
  JOBSERVICE_SECRET: string
  REGISTRYCTL_SECRET: string
  LOG_COLLECTOR_SECRET: string
}

/** A running installation, as the supervisor publishes it and the other commands read it. */
export type InstallationState = {
  pid: number
  startedAt: string
  /** As clients name it. */
  address: string
  /** As this machine reaches it, whatever stands in front. */
  door: string
  phase: 'starting' | 'running' | 'stopping' | 'failed'
  /** What is being done, or why it failed. */
  detail: string
  exitCode?: number
  /** Where the embedded servers are, once they run. */
  databaseUrl?: string
  redisUrl?: string
  processes: { name: string; pid: number | null; restarts: number; ready: boolean }[]
}

/** The folder of one installation. Everything below it is this user's alone. */
export class Home {
  readonly folder: string

  constructor(folder: string) {
    this.folder = folder
  }

  create(): void {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 })
    mkdirSync(this.logs, { recursive: true, mode: 0o700 })
  }

  exists(): boolean {
    return existsSync(this.folder)
  }

  get logs() {
    return join(this.folder, 'logs')
  }

  get blobs() {
    return join(this.folder, 'blobs')
  }

  /** What its processes run. */
  get program() {
    return join(this.folder, 'program')
  }

  get postgres() {
    return join(this.folder, 'postgres')
  }

  get redis() {
    return join(this.folder, 'redis')
  }

  /** The self-signed pair. */
  get tls() {
    return join(this.folder, 'tls')
  }

  /** What clients need in order to trust it. */
  get certificate() {
    return join(this.tls, 'tls.crt')
  }

  /** What the log collector keeps: a file a service. */
  get serviceLogs() {
    return join(this.logs, 'services')
  }

  get adminPasswordFile() {
    return join(this.folder, 'admin-password')
  }

  get supervisorLog() {
    return join(this.logs, 'supervisor.log')
  }

  /** Whether `secrets` has been asked for before: whether there is an installation in this folder. */
  hasSecrets(): boolean {
    return existsSync(this.#secretsFile)
  }

  /** Made at the first start; read ever after. @throws problems.keyUnreadable */
  secrets(): InstallationSecrets {
    const file = this.#secretsFile
    if (!existsSync(file)) this.#write(file, JSON.stringify(newSecrets(), null, 2))
    try {
      return JSON.parse(readFileSync(file, 'utf8')) as InstallationSecrets
    } catch (cause) {
      // Not made anew: what the lost key has sealed would be lost with it.
      throw problems.keyUnreadable({ setting: file, reason: (cause as Error).message }, { cause })
    }
  }

  /**
   * The administrator's password of the first start: the one given, else the one made for this installation.
   * A given one is not written down.
   */
  adminPassword(given: string | undefined): string {
    if (given !== undefined) return given
    if (!existsSync(this.adminPasswordFile)) this.#write(this.adminPasswordFile, `${newPassword()}\n`)
    return readFileSync(this.adminPasswordFile, 'utf8').trim()
  }

  readState(): InstallationState | null {
    try {
      return JSON.parse(readFileSync(this.#stateFile, 'utf8')) as InstallationState
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
  }

  writeState(state: InstallationState): void {
    this.#write(this.#stateFile, JSON.stringify(state))
  }

  clearState(): void {
    rmSync(this.#stateFile, { force: true })
  }

  get #secretsFile() {
    return join(this.folder, 'secrets.json')
  }

  get #stateFile() {
    return join(this.folder, 'state.json')
  }

  /**
   * Whole or not at all, a power cut included: a reader never sees half a file, and the key is on the disk before anything is sealed
   * with it.
   */
  #write(file: string, content: string) {
    const temporary = `${file}.${process.pid}.tmp`
    writeFileSync(temporary, content, { mode: 0o600, flush: true })
    chmodSync(temporary, 0o600)
    renameSync(temporary, file)
    const folder = openSync(dirname(file), 'r')
    fsyncSync(folder)
    closeSync(folder)
  }
}

/** Does the process run? One of another user counts, one that has ended and is not yet waited for does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  return !isZombie(pid)
}

function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
  } catch {
    return false // no /proc on this system, or it has just gone
  }
}

function newSecrets(): InstallationSecrets {
  const secret = () => randomBytes(32).toString('base64')
  return {
    HAVEN_ENCRYPTION_KEY: secret(),
    HAVEN_PROXY_SECRET: secret(),
    CORE_SECRET: secret(),
    JOBSERVICE_SECRET: secret(),
    REGISTRYCTL_SECRET: secret(),
    LOG_COLLECTOR_SECRET: secret(),
  }
}

/** 120 bits, and one of each class that the password rule asks for. */
const newPassword = () => `Hv1-${randomBytes(15).toString('base64url')}`
