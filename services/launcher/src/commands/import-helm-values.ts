import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { problems } from '@haven/errors'
import type { Finding } from '../helm-values/overlay.ts'
import { translate } from '../helm-values/translate.ts'

type Options = {
  readonly values: string
  readonly out: string
  /** The folder deploy/kubernetes or its URL. */
  readonly base: string
  readonly namespace: string
}

const sections: Record<Finding['kind'], string> = {
  settle: 'To be settled before it can start',
  cannot: 'Asked for, and different here',
  unknown: 'Keys that nobody here knows',
  'not needed': 'Keys that are not needed',
}

/**
 * `haven import-helm-values`: writes an overlay of deploy/kubernetes from a `values.yaml` of harbor-helm. Nothing is overwritten. What was not
 * taken over is printed, and kept in IMPORTED.md with the keys that are not needed.
 * @returns false while something has to be settled.
 */
export function importHelmValues({ values, out, base, namespace }: Options, print: (line: string) => void): boolean {
  const folder = resolve(out)
  if (existsSync(join(folder, 'kustomization.yaml'))) {
    throw problems.badUsage({ message: `${out} holds an overlay already; name another folder by --out` })
  }
  const overlay = translate(readValues(values), { base: baseFrom(folder, base), namespace })
  const { findings } = overlay
  mkdirSync(join(folder, 'secrets'), { recursive: true, mode: 0o700 })
  for (const [name, text] of overlay.files()) {
    writeFileSync(join(folder, name), text, { mode: dirname(name) === 'secrets' ? 0o600 : 0o644 })
  }
  writeFileSync(
    join(folder, 'IMPORTED.md'),
    `# From ${relative(folder, resolve(values))}\n${describe(findings, Object.keys(sections) as Finding['kind'][])}`,
  )
  const lines = describe(findings, ['settle', 'cannot', 'unknown'])
  if (lines !== '') print(lines.trim())
  print(`wrote ${out}; next: make-secrets ${out}, and kubectl apply -k ${out}`)
  return findings.every(({ kind }) => kind !== 'settle')
}

function describe(findings: readonly Finding[], kinds: readonly Finding['kind'][]): string {
  return kinds
    .map((kind) => {
      const lines = findings
        .filter((finding) => finding.kind === kind)
        .map(({ path, what }) => `- \`${path}\`: ${what}\n`)
      return lines.length === 0 ? '' : `\n## ${sections[kind]}\n\n${lines.join('')}`
    })
    .join('')
}

function readValues(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw problems.badUsage({ message: `cannot read ${path}: ${(cause as Error).message}` }, { cause })
  }
}

/** kustomize takes paths below the overlay's own folder, or URLs, and no absolute path. */
function baseFrom(folder: string, base: string): string {
  if (base.includes('://')) return base
  if (!existsSync(join(base, 'base', 'kustomization.yaml'))) {
    throw problems.badUsage({ message: `${base} is not the folder deploy/kubernetes; say where that is by --base` })
  }
  return relative(folder, resolve(base))
}
