import type { DigestExplanation, DigestReason } from '@haven/artifacts/gc'
import type { HavenSchemas } from '@haven/proto'
import { time } from './time.ts'

/** Whether a repository may be known to the caller; of what was removed from it, when that was. */
export type MaySee = (repository: string, removedAt?: Date) => boolean

type Keeper = HavenSchemas['Keeper']

/** An explanation with only what may be seen. `exists` is what the caller would find out by a pull. */
export function presentDigest(
  { digest, present, reasons }: DigestExplanation,
  see: MaySee | 'everything',
): HavenSchemas['DigestExplanation'] {
  const all = see === 'everything'
  const seen = reasons.filter((reason) => all || isSeen(reason, see))
  // Of the bytes themselves, whoever sees nobody that uses them learns nothing.
  const told = all || seen.some(({ code }) => code === 'linked') ? reasons : seen
  const damaged = told.find((reason) => reason.code === 'damaged')
  const promised = told.find((reason) => reason.code === 'promised')
  const erasures = seen.flatMap((reason) => (reason.code === 'trashed' ? [presentErasure(reason)] : []))
  return {
    digest,
    exists: all ? present : !damaged && seen.some((reason) => !gone.has(reason.code)),
    ...(damaged && { damagedSince: time(damaged.since) }),
    keptBy: [
      ...seen.flatMap((reason) => keepersOf(reason, all)),
      ...(promised ? [{ kind: 'grace' as const, until: time(promised.until) }] : []),
    ],
    ...(all && { erasures }),
    removals: seen.flatMap((reason) => (reason.code === 'removed' ? [presentRemoval(reason, all)] : [])),
  }
}

const gone: ReadonlySet<DigestReason['code']> = new Set(['removed', 'tombstone', 'trashed'])

function isSeen(reason: DigestReason, see: MaySee): boolean {
  if (!('repository' in reason) || reason.repository === null) return false
  return reason.code === 'removed' ? see(reason.repository, reason.at) : see(reason.repository)
}

function keepersOf(reason: DigestReason, all: boolean): Keeper[] {
  if (!('repository' in reason) || reason.repository === null) return []
  const { repository } = reason
  const at = { project: repository.slice(0, repository.indexOf('/')), repository }
  switch (reason.code) {
    case 'tagged':
      return reason.tags.map((tag) => ({ kind: 'tag', ...at, reference: tag }))
    case 'childOf':
      return [{ kind: 'index', ...at, reference: reason.index }]
    case 'accessoryOf':
      return [{ kind: reason.subjectPresent ? 'subject' : 'untagged', ...at, reference: reason.subject }]
    case 'untagged':
      return [
        { kind: 'untagged', ...at },
        ...(reason.promisedUntil ? [{ kind: 'grace' as const, ...at, until: time(reason.promisedUntil) }] : []),
      ]
    case 'tombstone':
      return [
        {
          kind: 'tombstone',
          ...at,
          until: time(reason.purgeAfter),
          because: reason.because,
          ...(all && { by: reason.by }),
        },
      ]
    case 'linked': {
      const users = reason.neededBy.map((manifest): Keeper => ({ kind: 'manifest', ...at, reference: manifest }))
      if (reason.promisedUntil) users.push({ kind: 'grace', ...at, until: time(reason.promisedUntil) })
      return users.length > 0 ? users : [{ kind: 'link', ...at }]
    }
    case 'removed':
      return []
  }
}

function presentErasure(reason: Extract<DigestReason, { code: 'trashed' }>): HavenSchemas['Erasure'] {
  const { eraseAfter, because, attempts, lastError } = reason
  return { notBefore: time(eraseAfter), because, attempts, ...(lastError !== null && { lastError }) }
}

function presentRemoval(reason: Extract<DigestReason, { code: 'removed' }>, all: boolean): HavenSchemas['Removal'] {
  const { kind, repository, executionId, at, by, because } = reason
  return {
    kind: kind as HavenSchemas['Removal']['kind'],
    ...(repository !== null && { repository }),
    ...(executionId !== null && { execution: executionId }),
    at: time(at),
    because,
    ...(all && { by }),
  }
}
