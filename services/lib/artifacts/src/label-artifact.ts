import { statement, type Database, type Sql } from '@haven/db'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { holdLabel } from '@haven/projects'
import { ArtifactLabelledSchema, ArtifactUnlabelledSchema } from '@haven/proto/events'
import { nameOf, sourceOf, type PushGrant } from './grants.ts'

type Target = { id: number; repositoryId: number; digest: string; mediaType: string; artifactType: string | null }

const hold = statement<{ id: string }>(
  'manifests hold for label',
  'select id from artifacts.manifests where id = $1 and deleted_at is null for share',
)
const attach = statement<{ id: string }>(
  'labels attach',
  'insert into artifacts.artifact_labels (label_id, manifest_id) values ($1, $2) on conflict do nothing returning manifest_id as id',
)
const detach = statement<{ id: string }>(
  'labels detach',
  'delete from artifacts.artifact_labels where label_id = $1 and manifest_id = $2 returning manifest_id as id',
)

/**
 * Puts a label of the installation or of the artifact's project on it.
 * @throws notFound for a label that is not there or is another project's; manifestUnknown; conflict when it has the label.
 */
export async function labelArtifact(
  { db }: { db: Database },
  grant: PushGrant,
  artifact: Target,
  labelId: number,
): Promise<void> {
  await db.transaction(async (tx) => {
    // Held, so that a label that is being deleted is not put on anything after it was taken off everything.
    const label = await holdLabel(tx, labelId)
    if (!label) throw problems.notFound({ message: `label ${labelId} not found` })
    if (label.projectId !== 0 && label.projectId !== grant.project.id) {
      throw problems.notFound({ message: `project id ${grant.project.id}, label ${labelId} not found` })
    }
    if (!(await tx.one(hold, [artifact.id]))) {
      throw problems.manifestUnknown({ repository: nameOf(grant), reference: artifact.digest })
    }
    if (!(await tx.one(attach, [labelId, artifact.id]))) {
      throw problems.conflict({ message: `label ${labelId} is already added to the artifact ${artifact.id}` })
    }
    await tell(tx, ArtifactLabelledSchema, grant, artifact, label)
  })
}

/** Takes a label off an artifact. @throws notFound when it does not have it. */
export async function unlabelArtifact(
  { db }: { db: Database },
  grant: PushGrant,
  artifact: Target,
  labelId: number,
): Promise<void> {
  await db.transaction(async (tx) => {
    const label = await holdLabel(tx, labelId)
    if (!label || !(await tx.one(detach, [labelId, artifact.id]))) {
      throw problems.notFound({ message: `reference with label ${labelId} and artifact ${artifact.id} not found` })
    }
    await tell(tx, ArtifactUnlabelledSchema, grant, artifact, label)
  })
}

const tell = (
  tx: Sql,
  schema: typeof ArtifactLabelledSchema | typeof ArtifactUnlabelledSchema,
  grant: PushGrant,
  artifact: Target,
  label: { id: number; name: string },
) =>
  emit(tx, schema, sourceOf(grant), {
    repository: {
      id: BigInt(artifact.repositoryId),
      name: nameOf(grant),
      project: { id: BigInt(grant.project.id), name: grant.project.name },
    },
    artifact: {
      id: BigInt(artifact.id),
      digest: artifact.digest,
      mediaType: artifact.mediaType,
      artifactType: artifact.artifactType ?? '',
    },
    label: { id: BigInt(label.id), name: label.name },
  })
