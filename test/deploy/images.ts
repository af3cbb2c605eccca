import {
  chmodSync,
  copyFileSync,
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findTool } from '@haven/testkit/tools'
import { engine29Tools, type DockerEngine } from '../clients/docker-engine.ts'
import { must, run } from '../clients/tools.ts'

export const root = fileURLToPath(new URL('../..', import.meta.url))
/** Each has an image. */
export const services = globSync('services/*/src/main.ts', { cwd: root }).map((path) => path.split('/')[1]!)

/** What building and running our images needs, for `lacking`. */
export const imageTools = [...engine29Tools, 'busybox', 'docker-compose', 'redis-server', 'versitygw']

/** The time of all that is in the images. */
export const EPOCH = 1_764_547_200
/** What images stand on unless they are told otherwise. */
const base = 'node:24-bookworm-slim'

type Parts = {
  /** Programs of this machine, which come with the libraries that they need. */
  programs: readonly string[]
  /** Further names of a program. */
  links?: Record<string, readonly string[]>
  /** Folders and their copies' paths. */
  folders?: Record<string, string>
  scripts?: Record<string, string>
  /** Names of users, from number 999 downward. */
  users?: readonly string[]
  /** Folders that every user may write to. */
  writable?: readonly string[]
  /** Instructions of a Dockerfile. */
  changes?: readonly string[]
  platform?: string
}

/** Gives the engine an image of what is on this machine: no registry of base images is reached. */
export async function importImage(engine: DockerEngine, name: string, parts: Parts): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-root-'))
  try {
    const rootfs = join(folder, 'root')
    const place = (path: string) => {
      const to = join(rootfs, path)
      mkdirSync(dirname(to), { recursive: true })
      return to
    }
    const placeLibraries = async (program: string) => {
      const { code, stdout } = await run('ldd', [program])
      if (code !== 0) return // a static one
      // Its own libraries come with its folder.
      const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!)
      for (const path of libraries.filter((path) => /^\/(usr\/)?lib/.test(path))) copyFileSync(path, place(path))
    }
    for (const program of parts.programs) {
      copyFileSync(program, place(`bin/${basename(program)}`))
      await placeLibraries(program)
    }
    for (const [program, names] of Object.entries(parts.links ?? {}))
      for (const name of names) symlinkSync(program, place(`bin/${name}`))
    for (const [from, to] of Object.entries(parts.folders ?? {})) {
      cpSync(from, place(to), { recursive: true, verbatimSymlinks: true })
      for (const file of globSync('bin/*', { cwd: from })) await placeLibraries(join(from, file))
    }
    for (const [path, text] of Object.entries(parts.scripts ?? {})) writeFileSync(place(path), text, { mode: 0o755 })
    const users = ['root', ...(parts.users ?? [])]
    const numbered = users.map((user, at) => [user, at === 0 ? 0 : 1000 - at] as const)
    writeFileSync(place('etc/passwd'), numbered.map(([user, id]) => `${user}:x:${id}:${id}::/:\n`).join(''))
    writeFileSync(place('etc/group'), numbered.map(([user, id]) => `${user}:x:${id}:\n`).join(''))
    for (const path of ['tmp', ...(parts.writable ?? [])]) {
      mkdirSync(join(rootfs, path), { recursive: true })
      chmodSync(join(rootfs, path), 0o1777)
    }
    await must('tar', ['-C', rootfs, '--owner=0', '--group=0', '-cf', join(folder, 'root.tar'), '.'])
    const changes = ['ENV PATH=/bin', ...(parts.changes ?? [])].flatMap((change) => ['--change', change])
    const platform = parts.platform === undefined ? [] : ['--platform', parts.platform]
    await engine.mustDocker(['import', ...platform, ...changes, join(folder, 'root.tar'), name])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Node and the libraries that it needs, without a shell, under the name of the base that registries have. */
export const importBase = (engine: DockerEngine) => importImage(engine, base, { programs: [process.execPath] })

/** Writes the bundles of this tree into a folder. */
export const bundle = (folder: string, env: Record<string, string> = {}) =>
  must(process.execPath, ['deploy/images/bundle.ts', folder], {
    cwd: root,
    env: { SOURCE_DATE_EPOCH: String(EPOCH), ...env },
  })

/** Builds the images `haven/<service>:HAVEN_VERSION` from bundles. */
export async function bake(
  engine: DockerEngine,
  bundles: string,
  { args = [], env = {} }: { args?: readonly string[]; env?: Record<string, string> } = {},
): Promise<void> {
  await engine.mustDocker(
    ['buildx', 'bake', `--allow=fs.read=${bundles}`, '-f', 'deploy/images/bake.hcl', '--load', ...args],
    {
      cwd: root,
      env: {
        BUNDLES: bundles,
        SOURCE_DATE_EPOCH: String(EPOCH),
        // Of when and where it was built, which is another each time.
        BUILDX_NO_DEFAULT_ATTESTATIONS: '1',
        ...env,
      },
    },
  )
}

/** Adds the plug-in compose to the engine's client. */
export const addCompose = (engine: DockerEngine) =>
  symlinkSync(findTool('docker-compose')!, join(engine.env.DOCKER_CONFIG, 'cli-plugins/docker-compose'))
