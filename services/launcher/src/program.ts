import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { problems } from '@haven/errors'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const cache = join(root, 'node_modules/.cache/program')
const bundler = join(root, 'deploy/images/bundle.ts')

/** What the bundles are made of. */
const sources = ['services', 'proto/src', 'deploy/images', 'pnpm-lock.yaml']

/** Programs of earlier sources are kept that long: somebody may be about to copy them, or be making one. */
const KEPT_MS = 3_600_000

/** The pages of the portal, as they lie in this tree. */
export const portalFolder = join(root, 'portal/public')

/**
 * Puts the program that the processes of an installation run into a folder of that installation, unless it is there: the bundles of the images, of
 * this tree as it is now (decision 0021). The installation's own, so that a process that is started again never meets another tree's code.
 * @returns its entry point. @throws Problem when the code cannot be bundled.
 */
export async function placeProgram(folder: string, logs: string): Promise<string> {
  const version = versionOfSources()
  const built = join(cache, version)
  if (!existsSync(built)) {
    removeOlder(cache)
    await into(built, (made) => bundle(made, logs))
  }
  const own = join(folder, version)
  if (!existsSync(own)) {
    removeOlder(folder)
    await into(own, (made) => linkOrCopy(built, made))
  }
  return join(own, 'lib/main.js')
}

/** Changes with every file that the bundles could be made of. */
function versionOfSources(): string {
  const hash = createHash('sha256')
  for (const source of sources) {
    for (const file of filesBelow(join(root, source))) {
      const { size, mtimeMs } = statSync(file)
      hash.update(`${file} ${size} ${mtimeMs}\n`)
    }
  }
  return hash.digest('hex').slice(0, 16)
}

function* filesBelow(path: string): Generator<string> {
  if (statSync(path).isFile()) return yield path
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const below = join(path, entry.name)
    if (entry.isDirectory() && entry.name !== 'node_modules') yield* filesBelow(below)
    else if (entry.isFile() && !entry.name.endsWith('.test.ts')) yield below
  }
}

/** Of earlier sources, or left by a start that was killed. */
function removeOlder(folder: string) {
  const before = Date.now() - KEPT_MS
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const path = join(folder, name)
    if ((statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0) < before)
      rmSync(path, { recursive: true, force: true })
  }
}

/** Fills a folder that is either whole or not there, whoever else makes it meanwhile, and after a power cut, too. */
async function into(folder: string, fill: (made: string) => Promise<void> | void) {
  const parent = dirname(folder)
  mkdirSync(parent, { recursive: true })
  const made = mkdtempSync(join(parent, '.made-'))
  try {
    await fill(made)
    for (const path of [...readdirSync(made, { recursive: true, encoding: 'utf8' }), '.']) sync(join(made, path))
    try {
      renameSync(made, folder)
    } catch (error) {
      if (!existsSync(folder)) throw error // else somebody was quicker
    }
    sync(parent)
  } finally {
    rmSync(made, { recursive: true, force: true })
  }
}

function sync(path: string) {
  const open = openSync(path, 'r')
  fsyncSync(open)
  closeSync(open)
}

/** Its files are never written again, so a second name is as good as a copy where both are on one disk. */
function linkOrCopy(from: string, to: string) {
  for (const file of filesBelow(from)) {
    const own = join(to, relative(from, file))
    mkdirSync(dirname(own), { recursive: true })
    try {
      linkSync(file, own)
    } catch {
      copyFileSync(file, own)
    }
  }
}

async function bundle(folder: string, logs: string) {
  const layers = `${folder}-layers`
  try {
    await promisify(execFile)(process.execPath, [bundler, layers], { maxBuffer: 16 * 1024 * 1024 })
    for (const layer of ['shared', 'launcher']) cpSync(join(layers, layer, 'app'), folder, { recursive: true })
  } catch (cause) {
    process.stderr.write(`${(cause as { stderr?: string }).stderr ?? (cause as Error).stack}\n`)
    throw problems.processEnded({ what: 'bundling the services', how: 'an error', logs }, { cause })
  } finally {
    rmSync(layers, { recursive: true, force: true })
  }
}
