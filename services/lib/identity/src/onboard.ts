import { isUniqueViolation, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { UserCreatedSchema, UserUpdatedSchema } from '@haven/proto/events'
import { nameKey, requireUsername } from './names.ts'

/** Somebody whom a provider vouches for. */
export type VouchedFor = {
  readonly provider: string
  /** Who it is, in the provider's own terms. */
  readonly subject: string
  readonly username: string
  readonly realname: string
  readonly email: string | null
  readonly comment: string
}

export type Account = { readonly id: number; readonly name: string; readonly disabled: boolean }

/**
 * The account of somebody whom a provider vouches for, made when there is none, with the provider's e-mail address unless another
 * account has it. An account is never found by its name or address, only by what the provider said before: else whoever is called the
 * same there would get it (threats.md A66).
 * @throws conflict when somebody else has the name; badRequest for a name that nobody may have.
 */
export async function onboard(db: Database, source: EventSource, person: VouchedFor): Promise<Account> {
  for (let tries = 0; ; tries++) {
    try {
      return (await refresh(db, source, person)) ?? (await create(db, source, person))
    } catch (error) {
      if (!isUniqueViolation(error)) throw error
      // Another sign-in of the same person was faster, or somebody took the address meanwhile: both show at the second look.
      if (tries > 0) throw problems.conflict({ resource: 'user', name: person.username }, { cause: error })
    }
  }
}

async function refresh({ prisma }: Database, source: EventSource, person: VouchedFor): Promise<Account | null> {
  const { provider, subject } = person
  const known = await prisma.identity.findUnique({
    where: { provider_subject: { provider, subject } },
    include: { user: true },
  })
  if (!known) return null
  const { user } = known
  const email = await freeEmail({ prisma }, person.email, user.id)
  await prisma.identity.update({ where: { id: known.id }, data: { lastUsedAt: new Date() } })
  if (email !== null && email !== user.email) {
    await prisma.$transaction(async (tx) => {
      await tx.user.update({ where: { id: user.id }, data: { email, emailKey: nameKey(email) } })
      await emit(tx, UserUpdatedSchema, source, {
        user: { id: BigInt(user.id), name: user.username },
        fields: ['email'],
      })
    })
  }
  return { id: user.id, name: user.username, disabled: user.disabledAt !== null }
}

async function create({ prisma }: Database, source: EventSource, person: VouchedFor): Promise<Account> {
  const { provider, subject, realname, comment } = person
  const username = requireUsername(person.username)
  const email = await freeEmail({ prisma }, person.email, null)
  return prisma.$transaction(async (tx) => {
    const user = await tx.user.create({
      data: {
        username,
        usernameKey: nameKey(username),
        realname: realname.slice(0, 255),
        comment,
        ...(email !== null && { email, emailKey: nameKey(email) }),
        identities: { create: { provider, subject, lastUsedAt: new Date() } },
      },
    })
    await emit(tx, UserCreatedSchema, source, { user: { id: BigInt(user.id), name: username } })
    return { id: user.id, name: username, disabled: false }
  })
}

/** The address, if nobody but this user has it. */
async function freeEmail({ prisma }: Pick<Database, 'prisma'>, email: string | null, userId: number | null) {
  if (email === null) return null
  const other = await prisma.user.findUnique({ where: { emailKey: nameKey(email) }, select: { id: true } })
  return other === null || other.id === userId ? email : null
}
