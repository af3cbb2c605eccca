import { problems } from '@haven/errors'

/** One resource and what is to be done with it: `repository:library/app:pull,push`. */
export interface Scope {
  /** `repository`, `registry`; others are kept for the caller to drop. The class of `repository(plugin)` is cut off. */
  readonly type: string
  readonly name: string
  /** In the order given, each once. Empty when nothing but the name was given. */
  readonly actions: readonly string[]
}

export const maxScopes = 100
const maxScopeLength = 1024

/**
 * The scopes of a token request: of each `scope` parameter, several in one separated by blanks (go-containerregistry). Type
 * and actions end at the first and the last colon, as a name may hold a port. What is no scope is left out, as nothing is
 * granted by it. The same resource twice becomes one.
 *
 * @throws problems.badRequest for more than `maxScopes` (threats.md A33).
 */
export function parseScopes(parameters: string | readonly string[] | undefined): readonly Scope[] {
  const words = [parameters ?? []]
    .flat()
    .flatMap((parameter) => parameter.split(/[ \t]+/).filter((word) => word !== ''))
  if (words.length > maxScopes) throw problems.badRequest({ message: `more than ${maxScopes} scopes` })
  const byResource = new Map<string, { type: string; name: string; actions: Set<string> }>()
  for (const word of words) {
    const scope = parseScope(word)
    if (scope === null) continue
    const key = `${scope.type}:${scope.name}`
    const known = byResource.get(key)
    if (known) for (const action of scope.actions) known.actions.add(action)
    else byResource.set(key, { type: scope.type, name: scope.name, actions: new Set(scope.actions) })
  }
  return [...byResource.values()].map(({ type, name, actions }) => ({ type, name, actions: [...actions] }))
}

function parseScope(word: string): Scope | null {
  const first = word.indexOf(':')
  const last = word.lastIndexOf(':')
  if (first <= 0 || last === first || word.length > maxScopeLength || !/^[\u0021-\u007e]+$/.test(word)) return null
  const type = word.slice(0, first).replace(/\([a-z0-9]+\)$/, '')
  const name = word.slice(first + 1, last)
  const actions = word
    .slice(last + 1)
    .split(',')
    .filter((action) => action !== '')
  if (name === '' || !/^[a-z0-9]+$/.test(type) || !actions.every((action) => /^(?:[a-z-]+|\*)$/.test(action)))
    return null
  return { type, name, actions: [...new Set(actions)] }
}

export function formatScope({ type, name, actions }: Scope): string {
  return `${type}:${name}:${actions.join(',')}`
}
