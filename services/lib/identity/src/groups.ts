import { escapeLike, isUniqueViolation, listKept, Prisma, type Database, type Page } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { GroupCreatedSchema, GroupDeletedSchema, GroupRenamedSchema } from '@haven/proto/events'
import type { Authorities } from './authorities.ts'
import { canonicalDn, isDn } from './directories/dn.ts'

/** A group that a directory or an issuer tells of. Who is in it is theirs to say; what it may do is granted here. */
export type GroupFacts = {
  readonly id: number
  readonly name: string
  /** ldap | http | oidc */
  readonly provider: string
  /** What the provider calls it: a canonical DN, else its name. */
  readonly externalId: string
}

export type NewGroup = {
  readonly provider: string
  readonly name: string
  /** For LDAP. */
  readonly dn?: string
}

export type GroupDeps = {
  readonly db: Database
  /** Told at once of changes that this process makes, so that its next request sees them. */
  readonly authorities: Pick<Authorities, 'forget'>
}

type Transaction = Prisma.TransactionClient

const ldap = 'ldap'

/**
 * Makes a group, so that something can be granted to it. Answers its id.
 * @throws badRequest for a name or DN that is none; conflict when the provider has a group of this name or DN.
 */
export async function createGroup(deps: GroupDeps, source: EventSource, input: NewGroup): Promise<number> {
  const data = requireGroup(input)
  return orConflict(data.name, () =>
    deps.db.prisma.$transaction(async (tx) => (await insertGroup(tx, source, data)).id),
  )
}

/**
 * The group of this provider that has this name (LDAP: this DN), made if there is none. Of two directory groups with one name, the
 * second is called by its DN.
 */
export async function ensureGroup(
  deps: Pick<GroupDeps, 'db'>,
  source: EventSource,
  input: NewGroup,
): Promise<GroupFacts> {
  const data = requireGroup(input)
  const { prisma } = deps.db
  const known = () =>
    prisma.group.findUnique({
      where: { provider_externalId: { provider: data.provider, externalId: data.externalId } },
    })
  const found = await known()
  if (found) return facts(found)
  const taken = await prisma.group.count({ where: { provider: data.provider, name: data.name } })
  try {
    const name = taken > 0 ? data.externalId : data.name
    return facts(await prisma.$transaction((tx) => insertGroup(tx, source, { ...data, name })))
  } catch (error) {
    if (!isUniqueViolation(error)) throw error
    // Another sign-in of a member was faster; or it took the name for another DN, and then ours is free the second time.
    const other = await known()
    if (other) return facts(other)
    return facts(await prisma.$transaction((tx) => insertGroup(tx, source, { ...data, name: data.externalId })))
  }
}

/** The ids of these groups of a provider: one statement, but for those that nobody was in before. */
export async function ensureGroups(
  deps: Pick<GroupDeps, 'db'>,
  source: EventSource,
  provider: string,
  groups: readonly Omit<NewGroup, 'provider'>[],
): Promise<number[]> {
  const wanted = groups.map((group) => ({ group, externalId: requireGroup({ provider, ...group }).externalId }))
  const known = await deps.db.prisma.group.findMany({
    where: { provider, externalId: { in: wanted.map(({ externalId }) => externalId) } },
    select: { id: true, externalId: true },
  })
  const ids = new Map(known.map(({ id, externalId }) => [externalId, id]))
  for (const { group, externalId } of wanted) {
    if (!ids.has(externalId)) ids.set(externalId, (await ensureGroup(deps, source, { provider, ...group })).id)
  }
  return [...ids.values()]
}

/**
 * Calls a group something else. An LDAP group keeps its DN; others are known by their name, and whoever was in the one of the old
 * name is in this one again when the provider says so at the next sign-in.
 * @throws badRequest, notFound, conflict
 */
export async function renameGroup(deps: GroupDeps, source: EventSource, id: number, to: string): Promise<void> {
  const name = requireGroupName(to)
  await orConflict(name, () =>
    deps.db.prisma.$transaction(async (tx) => {
      const group = isId(id) ? await tx.group.findUnique({ where: { id } }) : null
      if (!group) throw problems.notFound({ resource: 'user group', id })
      if (group.name === name) return
      await tx.group.update({ where: { id }, data: { name, ...(group.provider !== ldap && { externalId: name }) } })
      if (group.provider !== ldap) await tx.groupMember.deleteMany({ where: { groupId: id } })
      await emit(tx, GroupRenamedSchema, source, { group: ref({ ...group, name }), previousName: group.name })
    }),
  )
  deps.authorities.forget()
}

/** Deletes a group with everything that was granted to it. That there is none is no mistake (harbor-api.md, tag usergroup). */
export async function deleteGroup(deps: GroupDeps, source: EventSource, id: number): Promise<void> {
  await deps.db.prisma.$transaction(async (tx) => {
    const group = isId(id) ? await tx.group.findUnique({ where: { id } }) : null
    if (!group) return
    // The row first: whoever makes it a member meanwhile holds the row, so that the grant is there to be taken afterwards (R8).
    const { count } = await tx.group.deleteMany({ where: { id } })
    if (count === 0) return
    await tx.grant.deleteMany({ where: { principalKind: 'group', principalId: id } })
    await emit(tx, GroupDeletedSchema, source, { group: ref(group) })
  })
  deps.authorities.forget()
}

export async function findGroup({ db }: Pick<GroupDeps, 'db'>, id: number): Promise<GroupFacts | null> {
  const row = isId(id) ? await db.prisma.group.findUnique({ where: { id } }) : null
  return row && facts(row)
}

/** By its whole name; without a provider, the first of any. */
export async function findGroupByName(
  { db }: Pick<GroupDeps, 'db'>,
  name: string,
  provider?: string,
): Promise<GroupFacts | null> {
  const where = { name, ...(provider !== undefined && { provider }) }
  const row = await db.prisma.group.findFirst({ where, orderBy: { id: 'asc' } })
  return row && facts(row)
}

export type GroupQuery = {
  readonly provider?: string | undefined
  /** Part of the name, whatever its case. */
  readonly name?: string | undefined
  /** Of an LDAP group, whole. */
  readonly dn?: string | undefined
  readonly page: Page
}

/** A page of groups in the order in which they were made, and how many there are. */
export async function listGroups(
  { db }: Pick<GroupDeps, 'db'>,
  query: GroupQuery,
): Promise<{ total: number; groups: GroupFacts[] }> {
  const { provider, name, dn } = query
  if (dn !== undefined && !isDn(dn)) return { total: 0, groups: [] }
  const { total, rows } = await listKept<Row>(db, {
    columns: Prisma.sql`id, name, provider, external_id as "externalId"`,
    from: Prisma.sql`identity.groups`,
    where: [
      Prisma.sql`true`,
      ...(provider === undefined ? [] : [Prisma.sql`provider = ${provider}`]),
      ...(name === undefined ? [] : [Prisma.sql`name ilike ${`%${escapeLike(name)}%`}`]),
      ...(dn === undefined ? [] : [Prisma.sql`external_id = ${canonicalDn(dn)}`]),
    ],
    order: [{ column: Prisma.sql`id`, descending: false }],
    page: query.page,
    tables: ['identity.groups'],
  })
  return { total, groups: rows.map(facts) }
}

/** The group of the directory with this DN. */
export async function findGroupByDn({ db }: Pick<GroupDeps, 'db'>, dn: string): Promise<GroupFacts | null> {
  const by = { provider: ldap, externalId: canonicalDn(dn) }
  const row = await db.prisma.group.findUnique({ where: { provider_externalId: by } })
  return row && facts(row)
}

/**
 * Puts a user into these groups of a provider and out of its others, as the provider said when the user signed in. Writes only what
 * changed, since each write makes every process forget what it knows of rights.
 */
export async function syncMemberships(
  { prisma }: Database,
  userId: number,
  provider: string,
  groupIds: readonly number[],
): Promise<void> {
  const rows = await prisma.groupMember.findMany({
    where: { userId, group: { provider } },
    select: { groupId: true },
  })
  const before = new Set(rows.map((row) => row.groupId))
  const after = new Set(groupIds)
  const gone = [...before].filter((id) => !after.has(id))
  const added = [...after].filter((id) => !before.has(id))
  if (gone.length > 0) await prisma.groupMember.deleteMany({ where: { userId, groupId: { in: gone } } })
  if (added.length > 0) {
    // A group may have been deleted in between; it is made again at the next sign-in.
    await prisma.$executeRaw`
      insert into identity.group_members (group_id, user_id)
      select id, ${userId}::int from identity.groups where id = any(${added}::int[]) on conflict do nothing`
  }
}

type Row = Prisma.GroupGetPayload<object>
type GroupData = { provider: string; name: string; externalId: string }

function requireGroup({ provider, name, dn }: NewGroup): GroupData {
  requireGroupName(name)
  return { provider, name, externalId: provider === ldap ? canonicalDn(dn ?? '') : name }
}

/** @throws badRequest */
function requireGroupName(name: string): string {
  if (name.trim() !== '' && name.length <= 255 && !/\p{Cc}/u.test(name)) return name
  throw problems.badRequest({
    message: 'the name of a group has 1 to 255 characters, none of them a control character',
  })
}

async function insertGroup(tx: Transaction, source: EventSource, data: GroupData): Promise<Row> {
  const group = await tx.group.create({ data })
  await emit(tx, GroupCreatedSchema, source, { group: ref(group) })
  return group
}

async function orConflict<T>(name: string, change: () => Promise<T>): Promise<T> {
  try {
    return await change()
  } catch (error) {
    if (!isUniqueViolation(error)) throw error
    throw problems.conflict(
      { message: `there is a user group ${name}, or one with this DN, already` },
      { cause: error },
    )
  }
}

const isId = (id: number) => Number.isSafeInteger(id) && id > 0 && id < 2 ** 31

const ref = (row: Pick<Row, 'id' | 'name' | 'provider'>) => ({
  id: BigInt(row.id),
  name: row.name,
  provider: row.provider,
})

const facts = ({ id, name, provider, externalId }: Row): GroupFacts => ({ id, name, provider, externalId })
