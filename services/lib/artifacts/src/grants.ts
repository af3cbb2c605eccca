import type { EventSource } from '@haven/events'
import type { Principal } from '@haven/identity'
import type { ProjectFacts } from '@haven/projects'
import { Door as EventDoor } from '@haven/proto/events'

export type Right = 'pull' | 'push' | 'delete'

/** The way by which a change came in. */
export type Door = 'registry' | 'api' | 'replication' | 'pull-through' | 'retention' | 'gc' | 'import'

declare const right: unique symbol

type GrantFacts = {
  readonly project: ProjectFacts
  /** Path below the project. */
  readonly repository: string
  readonly principal: Principal
  readonly requestId: string
  /** Address of the client, without port. */
  readonly address?: string | undefined
  readonly door: Door
}

/** The proof that somebody may do something in one repository: use cases ask for it, so a forgotten check does not compile. */
export type Grant<R extends Right> = GrantFacts & { readonly [right]: R }
export type PullGrant = Grant<'pull'>
export type PushGrant = Grant<'push'>
export type DeleteGrant = Grant<'delete'>

/** Only for those who have just decided that it is so: `access.require` of the registry and what core has in its place. */
export const grant = <R extends Right>(_right: R, facts: GrantFacts): Grant<R> => facts as Grant<R>

/** The whole name, project included. */
export const nameOf = ({ project, repository }: GrantFacts): string => `${project.name}/${repository}`

/** What an upload remembers of who opened it: names change hands, ids do not. */
export function principalKey(principal: Principal): string {
  switch (principal.kind) {
    case 'anonymous':
      return 'anonymous'
    case 'service':
      return `service:${principal.name}`
    case 'user':
    case 'robot':
      return `${principal.kind}:${principal.id}`
  }
}

export const actorOf = ({ principal }: GrantFacts): string =>
  principal.kind === 'anonymous' ? 'anonymous' : principal.name

export const sourceOf = ({ principal, requestId, address }: GrantFacts): EventSource => ({
  principal,
  requestId,
  address,
})

export const eventDoors: Record<Door, EventDoor> = {
  registry: EventDoor.REGISTRY,
  api: EventDoor.API,
  replication: EventDoor.REPLICATION,
  'pull-through': EventDoor.PULL_THROUGH,
  retention: EventDoor.RETENTION,
  gc: EventDoor.GARBAGE_COLLECTION,
  import: EventDoor.IMPORT,
}
