import type { ArtifactDeps } from './deps.ts'
import { cataloguedProjects, cataloguePage } from './store/catalog.ts'

type NamedProject = { id: number; name: string }

/**
 * Whole names of repositories that have an artifact, in the order of code points, from the first greater than `after`.
 *
 * @param readable which of these projects the caller may list, with their names.
 */
export async function listRepositories(
  { db }: ArtifactDeps,
  readable: (projectIds: number[]) => Promise<NamedProject[]>,
  { after, limit }: { after: string | null; limit: number },
): Promise<{ names: string[]; more: boolean }> {
  // On the pool: a long list on the shared read connection would hold up the pulls behind it.
  const projects = await readable(await cataloguedProjects(db.writes))
  // With the slash, since `a-b/x` comes before `a/x`; so whole projects follow each other.
  const inOrder = projects
    .map((project) => ({ ...project, prefix: `${project.name}/` }))
    .sort((a, b) => compare(a.prefix, b.prefix))
  const rest = after === null ? inOrder : inOrder.filter(({ prefix }) => prefix > after || after.startsWith(prefix))
  const first = rest[0]
  if (!first) return { names: [], more: false }
  const path = after !== null && after.startsWith(first.prefix) ? after.slice(first.prefix.length) : null
  const names = new Map(rest.map(({ id, name }) => [id, name]))
  const found = await cataloguePage(db.writes, [...names.keys()], path, limit + 1)
  return {
    names: found.slice(0, limit).map((row) => `${names.get(row.projectId)}/${row.path}`),
    more: found.length > limit && limit > 0,
  }
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
