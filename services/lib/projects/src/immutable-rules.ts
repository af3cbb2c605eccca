import {
  conditionsToSql,
  listRows,
  orderOf,
  Prisma,
  type Condition,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { compileDoublestar } from '@haven/oci'
import { ProjectUpdatedSchema } from '@haven/proto/events'
import type { ProjectDeps, Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'
import { isId } from './is-id.ts'

type Target = Pick<ProjectNode, 'id' | 'name'>

/** What a rule selects, as the API has it. */
export type RuleText = {
  priority?: number
  action?: string
  template?: string
  params?: Record<string, unknown>
  tag_selectors?: readonly Selector[] | null
  scope_selectors?: Record<string, readonly Selector[]>
}
type Selector = { kind?: string; decoration?: string; pattern?: string; extras?: string }

export type ImmutableRule = { id: number; disabled: boolean; rule: RuleText }

/** @throws badRequest for a pattern that cannot be read: it would protect nothing. */
function requirePatterns(rule: RuleText): void {
  const selectors = [...(rule.tag_selectors ?? []), ...Object.values(rule.scope_selectors ?? {}).flat()]
  for (const { pattern } of selectors) if (pattern !== undefined) compileDoublestar(pattern)
}

/**
 * Protects the tags that the rule selects. Answers the rule's id.
 * @throws badRequest; conflict when the project has a rule that selects the same.
 */
export async function createImmutableRule(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  { rule, disabled }: { rule: RuleText; disabled: boolean },
): Promise<number> {
  requirePatterns(rule)
  return changing(deps, source, project, async (tx) => {
    await requireNew(tx, project.id, rule, null)
    const { id } = await tx.immutableRule.create({ data: { projectId: project.id, rule: json(rule), disabled } })
    return id
  })
}

/**
 * Replaces what a rule selects; where `disabled` differs, only that is changed, as Harbor does.
 * @throws badRequest; conflict; notFound for a rule that is none of this project's.
 */
export async function updateImmutableRule(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  id: number,
  { rule, disabled }: { rule: RuleText; disabled: boolean },
): Promise<void> {
  requirePatterns(rule)
  await changing(deps, source, project, async (tx) => {
    const before = isId(id) ? await tx.immutableRule.findFirst({ where: { id, projectId: project.id } }) : null
    if (!before) throw noRule(id)
    if (before.disabled !== disabled) return tx.immutableRule.update({ where: { id }, data: { disabled } })
    await requireNew(tx, project.id, rule, id)
    return tx.immutableRule.update({ where: { id }, data: { rule: json(rule) } })
  })
}

/** @throws notFound for a rule that is none of this project's. */
export async function deleteImmutableRule(
  deps: ProjectDeps,
  source: EventSource,
  project: Target,
  id: number,
): Promise<void> {
  if (!isId(id)) throw noRule(id)
  await changing(deps, source, project, async (tx) => {
    const { count } = await tx.immutableRule.deleteMany({ where: { id, projectId: project.id } })
    if (count === 0) throw noRule(id)
  })
}

const fields: Fields = {
  id: { column: Prisma.sql`id`, type: 'number' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
}

/** A page of a project's rules, oldest first, and how many there are. */
export async function listImmutableRules(
  { db }: Pick<ProjectDeps, 'db'>,
  projectId: number,
  query: { conditions?: readonly Condition[]; sort?: readonly Sort[]; page: Page },
): Promise<{ total: number; rules: ImmutableRule[] }> {
  const { total, rows } = await listRows<ImmutableRule>(db.prisma, {
    columns: Prisma.sql`id, disabled, rule`,
    from: Prisma.sql`projects.immutable_rules`,
    where: [Prisma.sql`project_id = ${projectId}`, ...conditionsToSql(query.conditions ?? [], fields)],
    order: orderOf(query.sort ?? [], fields, [], Prisma.sql`id`),
    page: query.page,
  })
  return { total, rules: rows }
}

/** In one transaction with its event; one change of a project's rules at a time, so that two cannot both be the first. */
async function changing<T>(
  { db, directory }: ProjectDeps,
  source: EventSource,
  project: Target,
  change: (tx: Transaction) => Promise<T>,
): Promise<T> {
  const result = await db.prisma.$transaction(async (tx) => {
    await tx.$executeRaw`select from projects.projects where id = ${project.id} for update`
    const changed = await change(tx)
    const about = { id: BigInt(project.id), name: project.name }
    await emit(tx, ProjectUpdatedSchema, source, { project: about, fields: ['immutable_tag_rules'] })
    return changed
  })
  directory.forget()
  return result
}

async function requireNew(tx: Transaction, projectId: number, rule: RuleText, but: number | null): Promise<void> {
  const others = await tx.immutableRule.findMany({ where: { projectId, ...(but !== null && { id: { not: but } }) } })
  const same = others.some((other) => selection(other.rule as RuleText) === selection(rule))
  if (same) throw problems.conflict({ message: 'the immutable tag rule already exists in this project' })
}

/** What a rule selects, as a text that is equal for equal selections. */
const selection = ({ tag_selectors: tags, scope_selectors: scopes }: RuleText): string => {
  const plain = (selectors: readonly Selector[] | null | undefined) =>
    (selectors ?? []).map(({ kind, decoration, pattern, extras }) => [kind, decoration, pattern, extras ?? ''])
  const byScope = Object.entries(scopes ?? {}).map(([scope, selectors]) => [scope, plain(selectors)] as const)
  return JSON.stringify([plain(tags), byScope.sort(([a], [b]) => (a < b ? -1 : 1))])
}

const json = (rule: RuleText) => rule as unknown as Prisma.InputJsonObject
const noRule = (id: number) => problems.notFound({ message: `immutable tag rule ${id} not found` })
