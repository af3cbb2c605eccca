import type { DescMessage, Message, MessageShape } from '@bufbuild/protobuf'
import type { RecordedEvent } from '@haven/events'
import { decide, grantedResource, type Authority } from '@haven/identity'
import type { ProjectNode } from '@haven/projects'
import {
  ActorKind,
  ArtifactDeletedSchema,
  ArtifactLabelledSchema,
  ArtifactPushedSchema,
  ArtifactUnlabelledSchema,
  ConfigurationChangedSchema,
  GarbageCollectedSchema,
  MemberAddedSchema,
  MemberKind,
  MemberRemovedSchema,
  MemberUpdatedSchema,
  OperationProgressedSchema,
  ProjectCreatedSchema,
  ProjectDeletedSchema,
  ProjectUpdatedSchema,
  RepositoryCreatedSchema,
  RepositoryDeletedSchema,
  RepositoryUpdatedSchema,
  TagDeletedSchema,
  TagMovedSchema,
  type ArtifactLabelled,
  type ArtifactUnlabelled,
  type Membership,
  type ProjectRef,
  type RepositoryRef,
} from '@haven/proto/events'

/** Whether somebody hears of an event. `project` is the event's, as it is now; null: it has none, or no longer. */
type Audience = (authority: Authority, project: ProjectNode | null) => boolean

/** An event as listeners get it: text that all of them share, and who they are. */
export type Streamed = {
  readonly id: bigint
  readonly topic: string
  readonly projectId: number | null
  /** Its lines, without the number and without the empty line that ends it. */
  readonly text: string
  readonly audience: Audience
}

type Told = { topic: string; data: object; audience: Audience }
type Source = { type: string; tell(message: Message): readonly Told[] }

const source = <Schema extends DescMessage>(
  schema: Schema,
  tell: (message: MessageShape<Schema>) => readonly Told[],
): Source => ({ type: schema.typeName, tell })

const everybody: Audience = () => true
const onSystem =
  (resource: string, action: string): Audience =>
  (authority) =>
    decide(authority, { resource, action, on: 'system' }).allowed

/** What is gone is told of to whom may see everything: of all others nobody can say any more whether they might. */
const absent = (ref: ProjectRef | undefined): ProjectNode => ({
  id: Number(ref?.id ?? 0),
  name: ref?.name ?? '',
  public: false,
  createdAt: new Date(0),
})
const onProject = (ref: ProjectRef | undefined, named: string, action: string): Audience => {
  const resource = grantedResource('project', named)
  return (authority, project) =>
    decide(authority, { resource, action, on: { project: project ?? absent(ref) } }).allowed
}
const onRepository = (ref: RepositoryRef | undefined): Audience => {
  const path = ref?.name.slice((ref.project?.name.length ?? -1) + 1) ?? ''
  return (authority, project) => {
    const on = { project: project ?? absent(ref?.project), repository: path }
    return decide(authority, { resource: 'artifact', action: 'list', on }).allowed
  }
}
const isUser = ({ principal }: Authority, id: bigint): boolean =>
  principal.kind === 'user' && BigInt(principal.id) === id

const ofRepository = (topic: string, repository: RepositoryRef | undefined, more: object = {}): Told[] => [
  {
    topic,
    data: { project: Number(repository?.project?.id ?? 0), repository: repository?.name ?? '', ...more },
    audience: onRepository(repository),
  },
]
const labelOf = ({ artifact, label }: ArtifactLabelled | ArtifactUnlabelled) => ({
  digest: artifact?.digest ?? '',
  label: Number(label?.id ?? 0),
})

const role = (membership: Membership | undefined, roleId: number | null): Told[] => {
  const project = membership?.project
  const listed = onProject(project, 'member', 'list')
  const affected: Audience = (authority) =>
    membership?.kind === MemberKind.USER
      ? isUser(authority, membership.memberId)
      : // Whose group it is cannot be told from here: everybody who has something to do in the project looks again.
        [...authority.grantsOn(Number(project?.id ?? 0))].length > 0
  return [
    {
      topic: 'role.changed',
      data: { project: Number(project?.id ?? 0), role: roleId },
      audience: (authority, node) => affected(authority, node) || listed(authority, node),
    },
  ]
}

const project = (topic: string, ref: ProjectRef | undefined, more: object = {}): Told[] => [
  { topic, data: { project: Number(ref?.id ?? 0), ...more }, audience: onProject(ref, 'project', 'read') },
]

/** What is streamed of the events of the platform (portal.md §7): ids and what changed, nothing that a list would not show. */
const sources: readonly Source[] = [
  source(ArtifactPushedSchema, ({ repository, artifact, tag }) =>
    ofRepository('artifact.pushed', repository, { digest: artifact?.digest ?? '', ...(tag !== '' && { tag }) }),
  ),
  source(ArtifactDeletedSchema, ({ repository, artifact, tags }) =>
    ofRepository('artifact.deleted', repository, { digest: artifact?.digest ?? '', tags }),
  ),
  source(TagMovedSchema, ({ repository, tag, from, to }) =>
    ofRepository('artifact.tagged', repository, { tag, ...(from !== '' && { from }), digest: to }),
  ),
  source(TagDeletedSchema, ({ repository, tag, digest }) =>
    ofRepository('artifact.untagged', repository, { tag, digest }),
  ),
  source(ArtifactLabelledSchema, (event) => ofRepository('artifact.labelled', event.repository, labelOf(event))),
  source(ArtifactUnlabelledSchema, (event) => ofRepository('artifact.unlabelled', event.repository, labelOf(event))),
  source(RepositoryCreatedSchema, ({ repository }) => ofRepository('repository.created', repository)),
  source(RepositoryUpdatedSchema, ({ repository }) => ofRepository('repository.updated', repository)),
  source(RepositoryDeletedSchema, ({ repository }) => ofRepository('repository.deleted', repository)),
  source(ProjectCreatedSchema, (event) => project('project.created', event.project)),
  source(ProjectUpdatedSchema, (event) => project('project.updated', event.project, { fields: event.fields })),
  source(ProjectDeletedSchema, (event) => project('project.deleted', event.project)),
  source(MemberAddedSchema, ({ membership }) => role(membership, membership?.roleId ?? null)),
  source(MemberUpdatedSchema, ({ membership }) => role(membership, membership?.roleId ?? null)),
  source(MemberRemovedSchema, ({ membership }) => role(membership, null)),
  source(ConfigurationChangedSchema, ({ keys }) => [
    { topic: 'config.changed', data: { keys }, audience: onSystem('configuration', 'read') },
    ...(keys.includes('read_only') ? [{ topic: 'readonly.changed', data: {}, audience: everybody }] : []),
  ]),
  source(GarbageCollectedSchema, ({ execution, succeeded, dryRun }) => [
    {
      topic: 'job.ended',
      data: { type: 'GARBAGE_COLLECTION', execution: Number(execution), succeeded, dryRun },
      audience: onSystem('garbage-collection', 'read'),
    },
  ]),
  source(OperationProgressedSchema, (event) => [
    {
      topic: 'operation.progress',
      data: {
        operation: Number(event.operation),
        kind: event.kind,
        state: event.state,
        total: event.total,
        done: event.done,
        failed: event.failed,
      },
      audience: ({ principal }) =>
        (principal.kind === 'user' || principal.kind === 'robot') &&
        event.owner?.kind === (principal.kind === 'user' ? ActorKind.USER : ActorKind.ROBOT) &&
        event.owner.id === BigInt(principal.id),
    },
  ]),
]

const tellers = new Map(sources.map(({ type, tell }) => [type, tell]))

/** Full names of the messages of which something is streamed. */
export const streamedTypes: readonly string[] = [...tellers.keys()]

/** Everything that a stream can hold; `reload` is for who missed something. */
export const topics = [
  'artifact.pushed',
  'artifact.deleted',
  'artifact.tagged',
  'artifact.untagged',
  'artifact.labelled',
  'artifact.unlabelled',
  'repository.created',
  'repository.updated',
  'repository.deleted',
  'project.created',
  'project.updated',
  'project.deleted',
  'role.changed',
  'config.changed',
  'readonly.changed',
  'job.ended',
  'operation.progress',
] as const

/** What listeners get of an event: nothing, or one or two. */
export function streamed({ id, type, projectId, occurredAt, message }: RecordedEvent): Streamed[] {
  return (tellers.get(type)?.(message) ?? []).map(({ topic, data, audience }) => {
    const json = JSON.stringify({ id: String(id), at: occurredAt.toISOString(), ...data })
    return { id, topic, projectId, text: `event: ${topic}\ndata: ${json}\n`, audience }
  })
}
