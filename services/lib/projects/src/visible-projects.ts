import { Prisma, type Database } from '@haven/db'
import type { ProjectNode } from './directory.ts'
import { isPublic, visibleTo, type ProjectQuery } from './list-projects.ts'

type Visible = ProjectQuery['visible']

const among = (visible: Visible) =>
  visible === 'all' ? Prisma.sql`p.deleted_at is null` : Prisma.sql`p.deleted_at is null and ${visibleTo(visible)}`

/** Every project that a caller may see, in one statement. */
export const visibleProjects = (
  { prisma }: Pick<Database, 'prisma'>,
  visible: Visible,
): Promise<Pick<ProjectNode, 'id' | 'name' | 'public'>[]> =>
  prisma.$queryRaw`select p.id, p.name, ${isPublic} as public from projects.projects p where ${among(visible)}`

/** Ids of the projects that a caller may see, by what everybody may see. */
export async function projectIdsByVisibility(
  { prisma }: Pick<Database, 'prisma'>,
  visible: Visible,
): Promise<{ public: number[]; private: number[] }> {
  const [found] = await prisma.$queryRaw<[{ public: number[]; private: number[] }]>`
    select coalesce(array_agg(v.id) filter (where v.public), '{}') as public,
           coalesce(array_agg(v.id) filter (where not v.public), '{}') as private
      from (select p.id, ${isPublic} as public from projects.projects p where ${among(visible)}) v`
  return found
}
