import { problems } from '@haven/errors'
import { parse } from 'yaml'

export type Tree = { readonly [key: string]: unknown }

/** What a `values.yaml` says, and which parts of it were looked at, so that no key is passed over without a word. */
export class HelmValues {
  readonly #root: Tree
  readonly #seen = new Set<string>()
  readonly #wrong: string[] = []

  /** @throws Problem badUsage when the text is no YAML or no mapping. */
  constructor(text: string) {
    this.#root = parseMapping(text)
  }

  /** A text of one line; it may end up in a file of lines. An empty one counts as not given, as in the chart; numbers are texts that look so. */
  text(path: string): string | undefined {
    const given = this.prose(path)
    // oxlint-disable-next-line no-control-regex -- the point of the check
    return given !== undefined && /[\u0000-\u001f\u007f]/.test(given) ? this.#refuse(path, 'a text of one line') : given
  }

  /** A text of any number of lines. */
  prose(path: string): string | undefined {
    const value = this.#take(path)
    if (nothing(value)) return undefined
    if (typeof value === 'string' || typeof value === 'number') return String(value)
    return this.#refuse(path, 'a text')
  }

  flag(path: string): boolean | undefined {
    const value = this.#take(path)
    if (nothing(value)) return undefined
    if (typeof value === 'boolean') return value
    // Quoted, as --set-string leaves it.
    if (value === 'true' || value === 'false') return value === 'true'
    return this.#refuse(path, 'true or false')
  }

  whole(path: string): number | undefined {
    const value = this.#take(path)
    if (nothing(value)) return undefined
    if (/^\d{1,9}$/.test(String(value))) return Number(value)
    return this.#refuse(path, 'a whole number')
  }

  oneOf<const W extends string>(path: string, words: readonly W[], otherwise: W): W {
    const value = this.#take(path)
    if (nothing(value)) return otherwise
    return words.find((word) => word === value) ?? this.#refuse(path, `one of ${words.join(', ')}`) ?? otherwise
  }

  /** A part of Kubernetes' own objects, taken over as it is: labels, resources, an affinity. */
  tree(path: string): Tree | undefined {
    const value = this.#take(path)
    if (nothing(value)) return undefined
    return isTree(value) ? value : this.#refuse(path, 'a mapping')
  }

  list(path: string): readonly unknown[] | undefined {
    const value = this.#take(path)
    if (nothing(value)) return undefined
    return Array.isArray(value) ? value : this.#refuse(path, 'a list')
  }

  /** Every key that was not looked at, with its value; sorted. Lists are values. */
  unseen(): { path: string; value: unknown }[] {
    const found: { path: string; value: unknown }[] = []
    const walk = (tree: Tree, above: string) => {
      for (const [key, value] of Object.entries(tree)) {
        const path = above + key
        if (this.#seen.has(path)) continue
        if (isTree(value) && Object.keys(value).length > 0) walk(value, `${path}.`)
        else found.push({ path, value })
      }
    }
    walk(this.#root, '')
    return found.sort((a, b) => (a.path < b.path ? -1 : 1))
  }

  /** Reads without counting as a look. */
  peek(path: string): unknown {
    return path.split('.').reduce<unknown>((at, key) => (isTree(at) ? at[key] : undefined), this.#root)
  }

  /** @throws Problem badUsage with every value that had the wrong form. */
  refuseWrong(): void {
    if (this.#wrong.length > 0)
      throw problems.badUsage({ message: ['the values are wrong:', ...this.#wrong].join('\n  ') })
  }

  #take(path: string): unknown {
    this.#seen.add(path)
    return this.peek(path)
  }

  #refuse(path: string, expected: string): undefined {
    this.#wrong.push(`${path}: expected ${expected}`)
  }
}

/** Nothing was asked for: the chart's own values are full of such. */
export function nothing(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true
  return Array.isArray(value) ? value.length === 0 : isTree(value) && Object.keys(value).length === 0
}

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value)

function parseMapping(text: string): Tree {
  let parsed: unknown
  try {
    // As Helm reads it.
    parsed = parse(text, { merge: true })
  } catch (cause) {
    throw problems.badUsage({ message: `the values are no YAML: ${(cause as Error).message}` }, { cause })
  }
  if (!isTree(parsed)) throw problems.badUsage({ message: 'the values are no mapping of keys to values' })
  return parsed
}
