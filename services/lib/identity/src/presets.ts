import type { Database } from '@haven/db'
import { permissionKey, permissionsOf, roles, type RoleName } from './permissions.ts'

const firstCustomRoleId = 1000
/** One process writes the presets; the others wait and find nothing to do. */
const presetsLock = 0x68_69_64_70

/**
 * Writes the preset roles and their permissions as `permissions.ts` has them: after each migration, by any replica. Roles that
 * people made are left alone.
 */
export async function ensurePresets(db: Database): Promise<void> {
  await db.prisma.$transaction(async (tx) => {
    await tx.$executeRaw`select pg_advisory_xact_lock(${presetsLock})`
    const present = new Map(
      (await tx.role.findMany({ where: { preset: true }, include: { permissions: true } })).map((r) => [r.id, r]),
    )
    for (const name of Object.keys(roles) as RoleName[]) {
      const { id, title, weight } = roles[name]
      const row = present.get(id)
      if (!row || row.name !== name || row.title !== title || row.weight !== weight) {
        const data = { name, title, weight, preset: true }
        await tx.role.upsert({ where: { id }, create: { id, ...data }, update: data })
      }
      const wanted = new Map(permissionsOf(name).map((p) => [permissionKey(p.resource, p.action), p]))
      const surplus = (row?.permissions ?? []).filter((p) => !wanted.delete(permissionKey(p.resource, p.action)))
      for (const { resource, action } of surplus) {
        await tx.rolePermission.delete({ where: { roleId_resource_action: { roleId: id, resource, action } } })
      }
      if (wanted.size > 0) {
        await tx.rolePermission.createMany({ data: [...wanted.values()].map((p) => ({ roleId: id, ...p })) })
      }
    }
    await tx.$executeRaw`
      select setval(pg_get_serial_sequence('identity.roles', 'id'), greatest(${firstCustomRoleId - 1}, (select max(id) from identity.roles)))`
  })
}
