import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DockerEngine } from './docker-engine.ts'
import { findTool } from '@haven/testkit/tools'
import { must } from './tools.ts'

/** Gives the docker engine a runnable image of one static program that prints `text`, and a second layer of random bytes. */
export async function buildImage(engine: DockerEngine, name: string, text: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-image-'))
  try {
    mkdirSync(join(folder, 'bin'))
    copyFileSync(findTool('busybox')!, join(folder, 'bin/busybox'))
    const random = crypto.getRandomValues(new Uint8Array(65_536))
    writeFileSync(join(folder, 'random'), random)
    writeFileSync(
      join(folder, 'Dockerfile'),
      `FROM scratch\nCOPY bin /bin\nCOPY random /random\nCMD ["/bin/busybox", "echo", "${text}"]\n`,
    )
    await engine.mustDocker(['build', '-q', '-t', name, folder])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Writes a chart `name`-`version`.tgz into `folder` and returns its path. */
export async function packChart(folder: string, name: string, version: string): Promise<string> {
  const chart = join(folder, name)
  mkdirSync(join(chart, 'templates'), { recursive: true })
  writeFileSync(join(chart, 'Chart.yaml'), `apiVersion: v2\nname: ${name}\nversion: ${version}\ntype: application\n`)
  writeFileSync(join(chart, 'values.yaml'), 'replicas: 1\n')
  writeFileSync(
    join(chart, 'templates/config.yaml'),
    'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n',
  )
  await must('tar', ['-czf', `${name}-${version}.tgz`, name], { cwd: folder })
  return join(folder, `${name}-${version}.tgz`)
}
