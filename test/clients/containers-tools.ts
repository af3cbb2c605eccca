import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findTool } from '@haven/testkit/tools'
import { must, run, type Outcome } from './tools.ts'

export type ContainersTools = {
  podman(...args: string[]): Promise<string>
  buildah(...args: string[]): Promise<string>
  skopeo(...args: string[]): Promise<string>
  /** Ends with any code. */
  tryTo(tool: 'podman' | 'buildah' | 'skopeo', ...args: string[]): Promise<Outcome>
}

/** podman, buildah and skopeo with storage and logins of their own below `folder`, under settings that need no systemd. */
export function containersTools(folder: string): ContainersTools {
  const home = join(folder, 'containers')
  mkdirSync(home)
  const file = (name: string, text: string) => {
    writeFileSync(join(home, name), text)
    return join(home, name)
  }
  const env = {
    CONTAINERS_STORAGE_CONF: file(
      'storage.conf',
      `[storage]\ndriver = "vfs"\ngraphroot = "${home}/graph"\nrunroot = "${home}/run"\n`,
    ),
    // A machine may refuse to raise limits (no CAP_SYS_RESOURCE), so they are named.
    CONTAINERS_CONF: file(
      'containers.conf',
      '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n' +
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n',
    ),
    REGISTRY_AUTH_FILE: file('auth.json', '{}'),
  }
  const tool =
    (name: string) =>
    (...args: string[]) =>
      must(findTool(name)!, args, { env })
  return {
    podman: tool('podman'),
    buildah: tool('buildah'),
    skopeo: tool('skopeo'),
    tryTo: (name, ...args) => run(findTool(name)!, args, { env }),
  }
}
