import type { Branded } from './brand.ts'

/** The whole name of a repository, project included: `library/app`. */
export type RepositoryName = Branded<'RepositoryName'>
export type ProjectName = Branded<'ProjectName'>
export type Tag = Branded<'Tag'>

export const maxNameLength = 255

// OCI Distribution 1.1, "Pulling manifests". Each pattern is linear: no text is matched by two of its branches.
const repository = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const tag = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
// Harbor's own rule; narrower than a path component of the specification.
const project = /^[a-z0-9]+(?:[._-][a-z0-9]+)*$/

/** A repository name in the specification's grammar, at most 255 characters; null for anything else. */
export function parseRepositoryName(text: string): RepositoryName | null {
  return text.length <= maxNameLength && repository.test(text) ? (text as RepositoryName) : null
}

/** A project name: `^[a-z0-9]+(?:[._-][a-z0-9]+)*$`, 1 to 255 characters; null for anything else. */
export function parseProjectName(text: string): ProjectName | null {
  return text.length <= maxNameLength && project.test(text) ? (text as ProjectName) : null
}

export function parseTag(text: string): Tag | null {
  return tag.test(text) ? (text as Tag) : null
}

/** The project and what follows it. Null when there is no project part or it cannot be the name of one. */
export function splitProject(name: RepositoryName): { project: ProjectName; path: string } | null {
  const slash = name.indexOf('/')
  if (slash === -1) return null
  const first = parseProjectName(name.slice(0, slash))
  return first && { project: first, path: name.slice(slash + 1) }
}
