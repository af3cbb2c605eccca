import {
  attributesOf,
  type ArtifactRow,
  type ContentSize,
  type DeletionPreview,
  type FullTagRow,
  type RecordedTagChange,
} from '@haven/artifacts'
import { protectionOf, type Label, type ProjectFacts } from '@haven/projects'
import type { HavenSchemas } from '@haven/proto'
import { time } from './time.ts'

/** @param named whether the reader may know who it was. */
export const presentTagChange = (
  { from, to, actor, door, reason, requestId, changedAt, restorableUntil }: RecordedTagChange,
  named: boolean,
): HavenSchemas['TagChange'] => ({
  at: time(changedAt),
  ...(from !== null && { from }),
  ...(to !== null && { to }),
  door: door as HavenSchemas['Door'],
  ...(named && { by: actor }),
  ...(reason !== null && { because: reason }),
  ...(named && requestId && { requestId }),
  ...(restorableUntil && { restorableUntil: time(restorableUntil) }),
})

/** With what is left of it when the unique part is gone. */
export const presentSize = <Size extends ContentSize>(size: Size) => ({
  ...size,
  sharedBytes: size.totalBytes - size.uniqueBytes,
})

export const presentDeletion = ({
  goes,
  stays,
  blockers,
  totalBytes,
  freedBytes,
  truncated,
}: DeletionPreview): HavenSchemas['DeletionPreview'] => ({
  allowed: blockers.length === 0,
  blockers,
  goes: goes.map(({ totalBytes: sizeBytes, ...going }) => ({ ...going, sizeBytes })),
  stays: stays.map(({ tags, index, subject, ...staying }) => ({
    ...staying,
    ...(tags.length > 0 && { tags }),
    ...(index !== null && { index }),
    ...(subject !== null && { subject }),
  })),
  totalBytes,
  freedBytes,
  sharedBytes: totalBytes - freedBytes,
  truncated,
})

export type RowView = {
  project: ProjectFacts
  /** By id: those that the rows carry. */
  labels: ReadonlyMap<number, Label>
  /** Whether the reader may know who it was. */
  named: boolean
}

const isProtected = ({ immutableRules }: ProjectFacts, repository: string, tag: string) =>
  (['overwrite', 'delete'] as const).some(
    (change) => protectionOf(immutableRules, { repository, tag }, change) !== null,
  )

/** Attestations are evidence and no platforms; BuildKit writes them for the platform unknown/unknown. */
function platformsOf(artifact: ArtifactRow): HavenSchemas['RowPlatform'][] {
  if (artifact.references) {
    return artifact.references.flatMap(({ digest, platform, annotations }) =>
      platform && platform.os !== 'unknown' && annotations?.['vnd.docker.reference.type'] === undefined
        ? [
            {
              os: platform.os,
              architecture: platform.architecture,
              ...(platform.variant && { variant: platform.variant }),
              digest,
            },
          ]
        : [],
    )
  }
  const { os, architecture, variant } = attributesOf(artifact) ?? {}
  if (typeof os !== 'string' || typeof architecture !== 'string' || os === '') return []
  return [{ os, architecture, ...(typeof variant === 'string' && variant !== '' && { variant }) }]
}

export const presentRow = (
  row: ArtifactRow & { size?: ContentSize },
  { project, labels, named }: RowView,
): HavenSchemas['ArtifactRow'] => ({
  repository: `${project.name}/${row.path}`,
  digest: row.digest,
  type: row.type,
  mediaType: row.mediaType,
  ...(row.artifactType !== null && { artifactType: row.artifactType }),
  sizeBytes: row.sizeBytes,
  ...(row.size && { size: presentSize(row.size) }),
  tags: (row.tags ?? []).map(({ name, pushedAt, pulledAt }) => ({
    name,
    pushedAt: time(new Date(pushedAt)),
    ...(pulledAt !== null && { pulledAt: time(new Date(pulledAt)) }),
    protected: isProtected(project, row.path, name),
  })),
  labels: (row.labelIds ?? []).flatMap((id) => {
    const label = labels.get(id)
    return label ? [{ id, name: label.name, color: label.color }] : []
  }),
  accessories: (row.accessories ?? []).map(({ digest, type, sizeBytes, pushedAt }) => ({
    digest,
    type,
    sizeBytes,
    pushedAt: time(new Date(pushedAt)),
  })),
  platforms: platformsOf(row),
  ...(row.moreReferences && { platformsTruncated: true }),
  annotations: row.annotations,
  pushedAt: time(row.pushedAt),
  ...(named && row.pushedBy !== null && { pushedBy: row.pushedBy }),
  ...(row.pulledAt && { pulledAt: time(row.pulledAt) }),
})

export const presentTagRow = (row: FullTagRow, view: RowView): HavenSchemas['TagRow'] => ({
  name: row.tag,
  pushedAt: time(row.tagPushedAt),
  ...(row.tagPulledAt && { pulledAt: time(row.tagPulledAt) }),
  protected: isProtected(view.project, row.path, row.tag),
  artifact: presentRow(row, view),
})
