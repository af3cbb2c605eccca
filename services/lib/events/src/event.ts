/** Who did it, and by which request: the same in every event, so that audit, webhooks and replication can say so. */
export type EventHeader = {
  /** Name of the user, robot (with its prefix) or service. Empty for nobody. */
  actor: string
  requestId?: string
  sourceAddress?: string
  /** False for an attempt that was refused, such as a wrong password. Absent is true. */
  success?: boolean
}

type Artifact = { repository: string; digest: string; tag?: string; mediaType?: string; artifactType?: string }
type Named = { id: number; name: string }

/**
 * The payload of each event type, as it is stored: the JSON form. A repository is named in full, project first. Types read
 * `<noun>.<past participle>`.
 */
export type EventPayloads = {
  'artifact.pushed': Artifact & { sizeBytes?: number; tags?: string[] }
  'artifact.pulled': Artifact
  'artifact.deleted': Artifact & { tags?: string[]; reason?: string }
  'tag.created': Artifact & { tag: string }
  'tag.deleted': Artifact & { tag: string }
  'repository.deleted': { repository: string }
  'project.created': Named
  'project.updated': Named
  'project.deleted': Named
  'member.created': { project: string; kind: string; name: string; role: string }
  'member.updated': { project: string; kind: string; name: string; role: string }
  'member.deleted': { project: string; kind: string; name: string }
  'user.created': Named
  'user.updated': Named & { what?: string }
  'user.deleted': Named
  'user.logged_in': { name: string }
  'user.logged_out': { name: string }
  'robot.created': Named
  'robot.deleted': Named
  'configuration.updated': { keys: string[] }
  'gc.finished': { executionId: number; status: string; freedBytes: number; blobs: number; manifests: number }
}

export type EventType = keyof EventPayloads

/** Something that happened. The header travels inside the stored payload. */
export type Event<Type extends EventType = EventType> = {
  [T in Type]: { type: T; header: EventHeader; projectId?: number | undefined; payload: EventPayloads[T] }
}[Type]

/** An event as it was read from the outbox. `id` is its place in the order of emission and names it for deduplication. */
export type RecordedEvent = Event & { id: bigint; occurredAt: Date }
