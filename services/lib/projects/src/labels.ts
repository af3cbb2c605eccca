import {
  conditionsToSql,
  escapeLike,
  isUniqueViolation,
  listKept,
  orderOf,
  Prisma,
  statement,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
  type Sql,
} from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { LabelCreatedSchema, LabelDeletedSchema, LabelUpdatedSchema } from '@haven/proto/events'
import type { Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'
import { isId } from './is-id.ts'

type Deps = { db: Database }
type Owner = Pick<ProjectNode, 'id' | 'name'>

export type Label = {
  id: number
  name: string
  description: string
  color: string
  /** 0: of the whole installation. */
  projectId: number
  createdAt: Date
  updatedAt: Date
}

export type LabelText = Pick<Label, 'name' | 'description' | 'color'>

const MAX_NAME = 128
const MAX_COLOR = 16

/** @throws badRequest for no name and for what is too long. The color is not looked at: Harbor's is whatever the portal sends. */
function requireFit({ name, color }: LabelText): void {
  if (name.trim() === '') throw problems.badRequest({ message: 'the name of the label is missing' })
  if (name.length > MAX_NAME)
    throw problems.badRequest({ message: `a label's name has at most ${MAX_NAME} characters` })
  if (color.length > MAX_COLOR)
    throw problems.badRequest({ message: `a label's color has at most ${MAX_COLOR} characters` })
}

/**
 * Makes a label of a project or, without one, of the whole installation. Answers its id.
 * @throws badRequest; conflict when there is one of this name.
 */
export async function createLabel(
  { db }: Deps,
  source: EventSource,
  project: Owner | null,
  text: LabelText,
): Promise<number> {
  requireFit(text)
  return named(text.name, () =>
    db.prisma.$transaction(async (tx) => {
      const place = { scope: project ? 'p' : 'g', projectId: project?.id ?? 0 }
      const { id } = await tx.label.create({ data: { ...text, ...place } })
      await emit(tx, LabelCreatedSchema, source, { ...about(project), label: { id: BigInt(id), name: text.name } })
      return id
    }),
  )
}

/** Replaces name, description and color. @throws badRequest; notFound; conflict when another has this name. */
export async function updateLabel(
  { db }: Deps,
  source: EventSource,
  project: Owner | null,
  id: number,
  text: LabelText,
): Promise<void> {
  requireFit(text)
  await named(text.name, () =>
    db.prisma.$transaction(async (tx) => {
      const { count } = await tx.label.updateMany({ where: { id, deletedAt: null }, data: text })
      if (count === 0) throw noLabel(id)
      await emit(tx, LabelUpdatedSchema, source, { ...about(project), label: { id: BigInt(id), name: text.name } })
    }),
  )
}

/**
 * Deletes a label. `detach` takes it off what carries it, in the same transaction.
 * @throws notFound
 */
export async function deleteLabel(
  { db }: Deps,
  source: EventSource,
  project: Owner | null,
  label: Pick<Label, 'id' | 'name'>,
  detach: (tx: Transaction) => Promise<unknown>,
): Promise<void> {
  await db.prisma.$transaction(async (tx) => {
    const gone = await tx.label.updateMany({
      where: { id: label.id, deletedAt: null },
      data: { deletedAt: new Date() },
    })
    if (gone.count === 0) throw noLabel(label.id)
    await detach(tx)
    await emit(tx, LabelDeletedSchema, source, { ...about(project), label: { id: BigInt(label.id), name: label.name } })
  })
}

/** @throws notFound */
export async function findLabel({ db }: Deps, id: number): Promise<Label> {
  const label = isId(id) ? await db.prisma.label.findFirst({ where: { id, deletedAt: null } }) : null
  if (!label) throw noLabel(id)
  return label
}

/** Keeps a label from being deleted until the transaction ends. Null when there is none. */
export const holdLabel = async (tx: Sql, id: number) => (isId(id) ? tx.one(hold, [id]) : null)

const hold = statement<{ id: number; name: string; projectId: number }>(
  'labels hold',
  'select id, name, project_id as "projectId" from projects.labels where id = $1 and deleted_at is null for share',
)

const byIds = statement<Label>(
  'labels by ids',
  `select id, name, description, color, project_id as "projectId", created_at as "createdAt", updated_at as "updatedAt"
     from projects.labels where id = any($1::int[]) and deleted_at is null`,
)

/** Those of these labels that are there, by id. */
export async function findLabels({ db }: Deps, ids: readonly number[]): Promise<Map<number, Label>> {
  if (ids.length === 0) return new Map()
  const labels = await db.writes.rows(byIds, [[...new Set(ids)]])
  return new Map(labels.map((label) => [label.id, label]))
}

/** Ids of the labels of each of these names: one of the installation perhaps, and one of each project that has it. */
export async function labelIdsByName({ db }: Deps, names: readonly string[]): Promise<Map<string, number[]>> {
  if (names.length === 0) return new Map()
  const labels = await db.prisma.label.findMany({
    where: { name: { in: [...names] }, deletedAt: null },
    select: { id: true, name: true },
  })
  return new Map([...Map.groupBy(labels, ({ name }) => name)].map(([name, all]) => [name, all.map(({ id }) => id)]))
}

const fields: Fields = {
  id: { column: Prisma.sql`id`, type: 'number' },
  name: { column: Prisma.sql`name`, type: 'text' },
  description: { column: Prisma.sql`description`, type: 'text' },
  color: { column: Prisma.sql`color`, type: 'text' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
  update_time: { column: Prisma.sql`updated_at`, type: 'time' },
}

export type LabelQuery = {
  /** 0: those of the whole installation. */
  projectId: number
  /** Part of the name. */
  name?: string
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
}

/** A page of labels and how many there are in all. */
export async function listLabels({ db }: Deps, query: LabelQuery): Promise<{ total: number; labels: Label[] }> {
  const { total, rows } = await listKept<Label>(db, {
    columns: Prisma.sql`
      id, name, description, color, project_id as "projectId", created_at as "createdAt", updated_at as "updatedAt"`,
    from: Prisma.sql`projects.labels`,
    where: [
      Prisma.sql`project_id = ${query.projectId} and deleted_at is null`,
      ...(query.name ? [Prisma.sql`name like ${`%${escapeLike(query.name)}%`}`] : []),
      ...conditionsToSql(query.conditions ?? [], fields),
    ],
    order: orderOf(query.sort ?? [], fields, [], Prisma.sql`id`),
    page: query.page,
    tables: ['projects.labels'],
  })
  return { total, labels: rows }
}

const noLabel = (id: number) => problems.notFound({ message: `label ${id} not found` })
const about = (project: Owner | null) => (project ? { project: { id: BigInt(project.id), name: project.name } } : {})

async function named<T>(name: string, change: () => Promise<T>): Promise<T> {
  try {
    return await change()
  } catch (error) {
    if (isUniqueViolation(error)) throw problems.conflict({ message: `label ${name} already exists` })
    throw error
  }
}
