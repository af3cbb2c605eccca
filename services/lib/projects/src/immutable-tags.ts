import { problems } from '@haven/errors'
import { compileDoublestar, type Matcher } from '@haven/oci'
import type { ImmutableRuleFacts } from './directory.ts'

/** The rule that protects a tag. */
export type Protection = { ruleId: number; repositories: string; tags: string }

type Selector = { excludes: boolean; pattern: string; matches: Matcher }
type Compiled = { repository: Selector; tag: Selector } | null

// Rules are read anew when a project changes, and are then other objects.
const compiled = new WeakMap<ImmutableRuleFacts, Compiled>()

/**
 * What protects a tag from being moved (`overwrite`) or removed (`delete`), as Harbor decides it: the first repository selector and
 * the first tag selector of an enabled rule both match (harbor-jobs-and-data.md §13). Null when nothing does.
 *
 * @param repository without its project.
 */
export function protectionOf(
  rules: readonly ImmutableRuleFacts[],
  { repository, tag }: { repository: string; tag: string },
  change: 'overwrite' | 'delete',
): Protection | null {
  for (const rule of rules) {
    if (!(change === 'overwrite' ? rule.protectOverwrite : rule.protectDelete)) continue
    const selectors = compile(rule)
    if (selectors && selects(selectors.repository, repository) && selects(selectors.tag, tag)) {
      return { ruleId: rule.id, repositories: describe(selectors.repository), tags: describe(selectors.tag) }
    }
  }
  return null
}

const selects = ({ excludes, matches }: Selector, text: string) => matches(text) !== excludes
const describe = ({ excludes, pattern }: Selector) => (excludes ? `all but ${pattern}` : pattern)

/** Null for a rule that selects nothing, for want of a selector that can be read. */
function compile(rule: ImmutableRuleFacts): Compiled {
  const known = compiled.get(rule)
  if (known !== undefined) return known
  const { tag_selectors: tags, scope_selectors: scopes } = (rule.rule ?? {}) as {
    tag_selectors?: unknown
    scope_selectors?: { repository?: unknown }
  }
  const repository = firstOf(scopes?.repository)
  const tag = firstOf(tags)
  const made = repository && tag && { repository, tag }
  compiled.set(rule, made)
  return made
}

function firstOf(selectors: unknown): Selector | null {
  const [first] = Array.isArray(selectors) ? (selectors as { decoration?: unknown; pattern?: unknown }[]) : []
  if (typeof first?.pattern !== 'string') return null
  const { pattern } = first
  const excludes = first.decoration === 'excludes' || first.decoration === 'repoExcludes'
  try {
    return { excludes, pattern, matches: compileDoublestar(pattern) }
  } catch (error) {
    // Harbor stores any text, and one that is no pattern matches nothing there. Ours refuses it when the rule is written.
    if (problems.badRequest.is(error)) return null
    throw error
  }
}
