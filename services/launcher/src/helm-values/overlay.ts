import { stringify } from 'yaml'
import type { Tree } from './values.ts'

/** Something about a key that the overlay alone does not do. */
export type Finding = {
  readonly path: string
  /** `settle`: without it the overlay does not start. `cannot`: it was asked for and is not there. `unknown`: not a key we know. */
  readonly kind: 'settle' | 'cannot' | 'unknown' | 'not needed'
  /** What to do, or why nothing has to be done. */
  readonly what: string
}

type Patch = { readonly target: Tree; readonly patch: unknown }

/** A folder for kustomize, put together piece by piece. */
export class Overlay {
  readonly namespace: string
  readonly #base: string
  readonly #components: string[] = []
  readonly #settings = new Map<string, string>()
  readonly #patches: Patch[] = []
  readonly #replicas = new Map<string, number>()
  readonly #resources = new Map<string, Tree[]>()
  readonly #secrets = new Map<string, Map<string, string> | null>()
  readonly findings: Finding[] = []

  /** @param base the folder deploy/kubernetes, as seen from the overlay, or its URL */
  constructor(base: string, namespace: string) {
    this.#base = base.replace(/\/$/, '')
    this.namespace = namespace
  }

  component(name: string): void {
    this.#components.push(name)
  }

  setting(name: string, value: string | number | boolean | undefined): void {
    if (value !== undefined) this.#settings.set(name, String(value))
  }

  /** A strategic merge of the objects that kind and name (a regular expression) select, or a JSON patch where it is a list. */
  patch(kind: string, name: string, patch: unknown): void {
    this.#patches.push({ target: { kind, name }, patch })
  }

  replicas(name: string, count: number | undefined): void {
    if (count !== undefined) this.#replicas.set(name, count)
  }

  resource(file: string, object: Tree): void {
    this.#resources.set(file, [...(this.#resources.get(file) ?? []), object])
  }

  /** A Secret `haven-<part>` from a file of the overlay; `lines` are written now, else make-secrets does. */
  secret(part: string, lines?: Readonly<Record<string, string>>): void {
    this.#secrets.set(part, lines ? new Map(Object.entries(lines)) : null)
  }

  say(path: string, kind: Finding['kind'], what: string): void {
    this.findings.push({ path, kind, what })
  }

  /** The files by name; those below `secrets/` are nobody else's to read. */
  files(): Map<string, string> {
    const kustomization = {
      apiVersion: 'kustomize.config.k8s.io/v1beta1',
      kind: 'Kustomization',
      namespace: this.namespace,
      resources: [`${this.#base}/base`, ...this.#resources.keys()],
      components: this.#components.map((name) => `${this.#base}/components/${name}`),
      configMapGenerator: [
        {
          name: 'haven-settings',
          behavior: 'merge',
          literals: [...this.#settings].map(([name, value]) => `${name}=${value}`),
        },
      ],
      secretGenerator: [...this.#secrets.keys()].map((part) => ({
        name: `haven-${part}`,
        envs: [`secrets/${part}.env`],
      })),
      ...(this.#replicas.size > 0 && { replicas: [...this.#replicas].map(([name, count]) => ({ name, count })) }),
      ...(this.#patches.length > 0 && {
        patches: this.#patches.map(({ target, patch }) => ({ target, patch: yaml(patch) })),
      }),
    }
    const files = new Map([['kustomization.yaml', yaml(kustomization)]])
    for (const [file, objects] of this.#resources) files.set(file, objects.map(yaml).join('---\n'))
    for (const [part, lines] of this.#secrets) {
      if (lines) files.set(`secrets/${part}.env`, [...lines].map(([name, value]) => `${name}=${value}\n`).join(''))
    }
    files.set('.gitignore', 'secrets/\n')
    return files
  }
}

const yaml = (value: unknown) => stringify(value, { lineWidth: 0, aliasDuplicateObjects: false })
