import { statement, type Database } from '@haven/db'
import { permissionsOf, roles, type RoleName } from './permissions.ts'

const firstCustomRoleId = 1000
/** One process writes the presets; the others wait and find nothing to do. */
const presetsLock = 0x68_69_64_70

const lock = statement('presets: lock', 'select pg_advisory_xact_lock($1)')
const writeRoles = statement(
  'presets: roles',
  `insert into identity.roles as r (id, name, title, weight, preset)
   select id, name, title, weight, true from unnest($1::int[], $2::text[], $3::text[], $4::int[]) given (id, name, title, weight)
   on conflict (id) do update set name = excluded.name, title = excluded.title, weight = excluded.weight, preset = true
    where (r.name, r.title, r.weight, r.preset) is distinct from (excluded.name, excluded.title, excluded.weight, true)`,
)
const deleteSurplus = statement(
  'presets: surplus permissions',
  `delete from identity.role_permissions p using identity.roles r
    where r.id = p.role_id and r.preset and not exists (
      select from unnest($1::int[], $2::text[], $3::text[]) given (role_id, resource, action)
       where (given.role_id, given.resource, given.action) = (p.role_id, p.resource, p.action))`,
)
const insertMissing = statement(
  'presets: missing permissions',
  `insert into identity.role_permissions (role_id, resource, action)
   select * from unnest($1::int[], $2::text[], $3::text[]) on conflict do nothing`,
)
const leaveIds = statement(
  'presets: ids of other roles',
  `select setval(pg_get_serial_sequence('identity.roles', 'id'), greatest($1::int, (select max(id) from identity.roles)))`,
)

/**
 * Writes the preset roles and their permissions as `permissions.ts` has them: after each migration, by any replica. Roles that
 * people made are left alone.
 */
export async function ensurePresets(db: Database): Promise<void> {
  const presets = Object.entries(roles).map(([name, { id, title, weight }]) => ({
    name: name as RoleName,
    id,
    title,
    weight,
  }))
  const permissions = presets.flatMap(({ id, name }) => permissionsOf(name).map((each) => ({ id, ...each })))
  const column = <Row, Key extends keyof Row>(rows: readonly Row[], key: Key) => rows.map((row) => row[key])
  const wanted = [column(permissions, 'id'), column(permissions, 'resource'), column(permissions, 'action')]
  await db.transaction(async (tx) => {
    await tx.rows(lock, [presetsLock])
    await tx.rows(writeRoles, [
      column(presets, 'id'),
      column(presets, 'name'),
      column(presets, 'title'),
      column(presets, 'weight'),
    ])
    await tx.rows(deleteSurplus, wanted)
    await tx.rows(insertMissing, wanted)
    await tx.rows(leaveIds, [firstCustomRoleId - 1])
  })
}
