import {
  attributesOf,
  harborAdditionsOf,
  iconNameOf,
  ownIconOf,
  type Accessory,
  type ArtifactContent,
  type ArtifactRow,
} from '@haven/artifacts'
import { protectionOf, type Label, type ProjectFacts } from '@haven/projects'
import type { HarborSchemas, HavenSchemas } from '@haven/proto'
import { accessoryIcon, iconDigest } from '../icons.ts'
import { presentLabel } from './label.ts'
import { NO_TIME, time } from './time.ts'

export type ArtifactView = {
  project: ProjectFacts
  artifact: ArtifactRow
  /** By id: those that artifacts of the answer carry. */
  labels: ReadonlyMap<number, Label>
  withImmutableStatus: boolean
}

/** Lists that were not asked for, and those that are empty, are null: as in Harbor. */
export function presentArtifact({
  project,
  artifact,
  labels,
  withImmutableStatus,
}: ArtifactView): HarborSchemas['Artifact'] {
  const repository = `${project.name}/${artifact.path}`
  const attributes = attributesOf(artifact)
  const additions = harborAdditionsOf(artifact)
  const carried = (artifact.labelIds ?? []).flatMap((id) => labels.get(id) ?? [])
  return {
    id: artifact.id,
    type: artifact.type,
    media_type: artifact.configMediaType ?? artifact.mediaType,
    manifest_media_type: artifact.mediaType,
    ...(artifact.artifactType !== null && { artifact_type: artifact.artifactType }),
    project_id: project.id,
    repository_id: artifact.repositoryId,
    repository_name: repository,
    digest: artifact.digest,
    size: artifact.sizeBytes,
    icon: ownIconOf(artifact) ?? iconDigest(iconNameOf(artifact)),
    push_time: time(artifact.pushedAt),
    pull_time: time(artifact.pulledAt),
    ...(attributes && { extra_attrs: attributes }),
    ...(Object.keys(artifact.annotations).length > 0 && { annotations: artifact.annotations }),
    references: artifact.references?.map((reference) => presentReference(artifact.id, reference)) ?? null,
    ...(artifact.moreReferences && { references_truncated: true }),
    tags:
      artifact.tags?.map((tag) =>
        presentTag(
          { ...tag, pushedAt: new Date(tag.pushedAt), pulledAt: tag.pulledAt === null ? null : new Date(tag.pulledAt) },
          { project, artifact, withImmutableStatus },
        ),
      ) ?? null,
    ...(additions.length > 0 && {
      addition_links: Object.fromEntries(
        additions.map((addition) => [addition, { href: hrefOf(project, artifact, addition), absolute: false }]),
      ),
    }),
    labels: carried.length === 0 ? null : carried.map(presentLabel),
    accessories: artifact.accessories?.map((accessory) => presentAccessory(accessory, repository)) ?? null,
    ...(artifact.inherited && {
      inherited_accessories: artifact.inherited.map((accessory) => presentAccessory(accessory, repository)),
    }),
  } as HarborSchemas['Artifact']
}

/** Whether a tag is immutable is only looked at when it is asked for; otherwise it is said not to be, as in Harbor. */
export const presentTag = (
  tag: { id: number; name: string; pushedAt: Date; pulledAt: Date | null },
  {
    project,
    artifact,
    withImmutableStatus,
  }: {
    project: ProjectFacts
    artifact: Pick<ArtifactRow, 'id' | 'repositoryId' | 'path'>
    withImmutableStatus: boolean
  },
): HarborSchemas['Tag'] => {
  const at = { repository: artifact.path, tag: tag.name }
  return {
    id: tag.id,
    repository_id: artifact.repositoryId,
    artifact_id: artifact.id,
    name: tag.name,
    push_time: time(tag.pushedAt),
    pull_time: time(tag.pulledAt),
    immutable:
      withImmutableStatus &&
      (['overwrite', 'delete'] as const).some((change) => protectionOf(project.immutableRules, at, change) !== null),
  }
}

export const presentAccessory = (accessory: Accessory, repository: string): HarborSchemas['Accessory'] => ({
  id: accessory.id,
  artifact_id: accessory.id,
  ...(accessory.subjectId !== null && { subject_artifact_id: accessory.subjectId }),
  subject_artifact_digest: accessory.subjectDigest,
  subject_artifact_repo: repository,
  size: accessory.sizeBytes,
  digest: accessory.digest,
  type: accessory.type,
  icon: accessoryIcon(accessory.type),
  creation_time: accessory.pushedAt === '' ? NO_TIME : time(new Date(accessory.pushedAt)),
})

/** The names that Harbor's answers have for what the contract writes with a dot (harbor-api.md §5). */
function presentReference(parentId: number, reference: NonNullable<ArtifactRow['references']>[number]) {
  const { platform, annotations, urls } = reference
  return {
    parent_id: parentId,
    ...(reference.childId !== null && { child_id: reference.childId }),
    child_digest: reference.digest,
    ...(platform && {
      platform: {
        architecture: platform.architecture,
        os: platform.os,
        ...(platform.variant !== undefined && { variant: platform.variant }),
        ...(platform['os.version'] !== undefined && { OsVersion: platform['os.version'] }),
        OsFeatures: platform['os.features'] ?? null,
      },
    }),
    ...(annotations && Object.keys(annotations).length > 0 && { annotations }),
    urls: urls.length === 0 ? null : urls,
  }
}

/** The repository is encoded twice, as in every path of the API. */
const hrefOf = (project: ProjectFacts, { path, digest }: ArtifactRow, addition: string) =>
  `/api/v2.0/projects/${project.name}/repositories/${encodeURIComponent(encodeURIComponent(path))}/artifacts/${digest}/additions/${addition}`

/** What the artifact is made of, with where each part is to be had. */
export function presentContent(
  project: ProjectFacts,
  artifact: ArtifactRow,
  { format, attributes, additions, platforms, evidence, files, truncated }: ArtifactContent,
): HavenSchemas['ArtifactContent'] {
  const at = `/api/haven/v1/projects/${project.name}/repositories/${encodeURIComponent(encodeURIComponent(artifact.path))}/artifacts/${artifact.digest}`
  return {
    format,
    attributes,
    additions: additions.map((name) => ({ name, href: `${at}/content/${name}` })),
    platforms: platforms.map(({ digest, platform }) => ({
      digest,
      os: platform.os,
      architecture: platform.architecture,
      ...(platform.variant !== undefined && { variant: platform.variant }),
      ...(platform['os.version'] !== undefined && { osVersion: platform['os.version'] }),
    })),
    evidence: evidence.map(({ digest, about }) => ({ digest, ...(about !== null && { about }) })),
    files: files.map(({ digest, mediaType, sizeBytes, title, present }) => ({
      digest,
      mediaType,
      sizeBytes,
      ...(title !== null && { title }),
      ...(present && { href: `/v2/${project.name}/${artifact.path}/blobs/${digest}` }),
    })),
    truncated,
  }
}
