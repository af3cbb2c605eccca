import { createHash } from 'node:crypto'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { basic, call, expectStatus } from './http.ts'
import type { Shown } from './judge.ts'
import { run } from './specials.ts'
import { haven, type Subject } from './subjects.ts'

/**
 * What an installation holds: people; projects with their quotas; lines of the audit log; robots, groups and labels of each kind; and
 * members of one project, whose pages are in the order of their names.
 */
type Size = { users: number; projects: number; audit: number; others: number; members: number }

const SMALL: Size = { users: 1_000, projects: 1_000, audit: 1_000, others: 1_000, members: 1_000 }
const FULL: Size = { users: 100_000, projects: 10_000, audit: 1_000_000, others: 10_000, members: 1_000 }
const OF_ONE_MEMBER = 300
const MEMBER = { username: 'member', password: 'Passw0rd' }
const PAGE = 15
const nameOf = (n: number) => createHash('md5').update(String(n)).digest('hex').slice(0, 12)
/** What the 42nd of each kind is called, and a part of it that one types. */
const NAME = nameOf(42)
const WORD = NAME.slice(2, 10)

/** Adds rows :first to :last. Names share few letters, as names do; times lie within three months, whatever the number. */
const statements: Record<keyof Size, readonly string[]> = {
  users: [
    `insert into identity.users (username, username_key, email, email_key, realname, created_at)
     select name, name, name || '@example.com', name || '@example.com', 'Person ' || n, now() - (:last - n) * interval '1 second'
       from generate_series(:first, :last) n, lateral (select 'person-' || left(md5(n::text), 12) as name) names`,
  ],
  projects: [
    `with made as (
       insert into projects.projects (name, name_key, owner_id)
       select name, name, 1 from generate_series(:first, :last) n, lateral (select 'team-' || left(md5(n::text), 12) as name) names
       returning id),
     limited as (insert into projects.quotas (project_id, used_bytes) select id, (id * 7919) % 1000003 from made)
     insert into projects.project_metadata (project_id, name, value)
     select id, 'public', case when id % 4 = 0 then 'true' else 'false' end from made`,
  ],
  audit: [
    `insert into events.audit_entries (occurred_at, project_id, operation, resource_type, resource, actor, description)
     select now() - interval '90 days' * (((n::bigint * 7919) % 1000003) / 1000003.0), p.id, operation, 'artifact',
            'team/app-' || left(md5((n % 20000)::text), 12) || ':latest', 'person-' || left(md5((n % 1000)::text), 12), operation || ' artifact'
       from generate_series(:first, :last) n,
            lateral (select (array['create', 'pull', 'pull', 'pull', 'delete'])[n % 5 + 1] as operation) operations
       join projects.projects p on p.name_key = 'library'`,
  ],
  others: [
    `insert into identity.robots (name_key, name, project_id)
     select case when project_id is null then name else 'library+' || name end, name, project_id
       from generate_series(:first, :last) n, lateral (select 'bot-' || left(md5(n::text), 12) as name) names,
            (select null::int as project_id union all select id from projects.projects where name_key = 'library') places`,
    `insert into identity.groups (name, provider, external_id)
     select name, 'http', name from generate_series(:first, :last) n, lateral (select 'group-' || left(md5(n::text), 12) as name) names`,
    `insert into projects.labels (name, scope, project_id)
     select 'label-' || left(md5(n::text), 12), case project_id when 0 then 'g' else 'p' end, project_id
       from generate_series(:first, :last) n,
            (select 0 as project_id union all select id from projects.projects where name_key = 'library') places`,
  ],
  members: [
    `insert into identity.grants (principal_kind, principal_id, role_id, node_kind, project_id)
     select 'user', u.id, 2, 'project', p.id from generate_series(:first, :last) n
       join identity.users u on u.username_key = 'person-' || left(md5(n::text), 12)
       join projects.projects p on p.name_key = 'library'`,
  ],
}

async function grow(subject: Subject, from: Size | null, to: Size): Promise<void> {
  const { query } = subject.installation!
  for (const kind of ['users', 'projects', 'others', 'members', 'audit'] as const) {
    for (const statement of statements[kind]) {
      await query(
        statement.replaceAll(/:(first|last)\b/g, (_, end) =>
          String(end === 'last' ? to[kind] : (from?.[kind] ?? 0) + 1),
        ),
      )
    }
  }
  // What these lines name is added up each minute: nobody writes a million at once.
  while ((await query('select id from events.audit_name_deltas limit 1')).length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 1_000))
  }
  await query('vacuum analyze')
}

type Probe = {
  list: string
  name: string
  /** With `as` the page of somebody who is a member of some projects; else of an administrator. */
  as?: 'member'
  path: (size: Size) => string
}

/** First page, middle and last, as the portal asks for them. */
function pages(list: string, kind: keyof Size, path: string, query = '', share = 1, label = query): Probe[] {
  const at = (part: number) => (size: Size) =>
    `/api/v2.0${path}?page=${Math.max(1, Math.floor((size[kind] * share * part) / PAGE))}&page_size=${PAGE}${query}`
  const name = `${path}${label}`
  return [
    { list, name: `${name}, first page`, path: at(0) },
    { list, name: `${name}, middle`, path: at(0.5) },
    { list, name: `${name}, last`, path: at(1) },
  ]
}

const first = (list: string, path: string): Probe => ({
  list,
  name: path,
  path: () => `/api/v2.0${path}${path.includes('?') ? '&' : '?'}page=1&page_size=${PAGE}`,
})
const q = (text: string) => `&q=${encodeURIComponent(text)}`

/** As people type it. */
const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString().slice(0, 19).replace('T', ' ')

const probes: readonly Probe[] = [
  ...pages('users', 'users', '/users'),
  ...pages('users', 'users', '/users', '&sort=username'),
  ...pages('users', 'users', '/users', '&sort=-creation_time'),
  first('users', `/users?${q(`username=~${WORD}`).slice(1)}`),
  first('users', `/users?${q(`email=~${WORD}`).slice(1)}`),
  ...pages('users', 'users', '/users', '&sort=realname'),
  ...pages('users', 'users', '/users', q('username=~person')),
  first('users', `/users/search?username=${WORD}`),
  ...pages('projects', 'projects', '/projects'),
  ...pages('projects', 'projects', '/projects', '&sort=-creation_time'),
  ...pages('projects', 'projects', '/projects', '&public=true', 0.25),
  first('projects', `/projects?name=${WORD}`),
  first('projects', '/projects?owner=admin'),
  { ...first('projects of a member', '/projects'), as: 'member' },
  { ...first('projects of a member', '/projects?public=false'), as: 'member' },
  { ...first('projects of a member', `/projects?name=${WORD}`), as: 'member' },
  first('search', `/search?q=${WORD}`),
  { ...first('search', `/search?q=${WORD}`), name: `/search?q=${WORD}, by a member`, as: 'member' },
  ...pages('audit log', 'audit', '/auditlog-exts'),
  ...pages('audit log', 'audit', '/auditlog-exts', '&sort=op_time'),
  ...pages('audit log', 'audit', '/auditlog-exts', q('operation=pull'), 0.6),
  ...pages('audit log', 'audit', '/auditlog-exts', q('resource_type=artifact')),
  ...pages('audit log', 'audit', '/auditlog-exts', q('username=~person')),
  ...pages(
    'audit log',
    'audit',
    '/auditlog-exts',
    q(`op_time=[${daysAgo(80)}~${daysAgo(10)}]`),
    0.77,
    '&q=op_time=[…~…]',
  ),
  ...pages('audit log', 'audit', '/projects/library/auditlog-exts'),
  first('audit log', `/auditlog-exts?${q(`username=person-${NAME}`).slice(1)}`),
  first('audit log', `/auditlog-exts?${q(`username=~${WORD}`).slice(1)}`),
  first('audit log', `/auditlog-exts?${q(`resource=~${WORD}`).slice(1)}`),
  first('audit log', `/auditlog-exts?${q('operation=~pul').slice(1)}`),
  first('audit log', `/auditlog-exts?${q(`username=person-${NAME},operation=pull`).slice(1)}`),
  first('audit log', '/auditlog-exts?sort=resource'),
  ...pages('robots', 'others', '/robots'),
  first('robots', `/robots?${q(`name=~${WORD}`).slice(1)}`),
  ...pages('robots', 'others', '/robots', q('Level=project,ProjectID=1')),
  ...pages('members', 'members', '/projects/library/members'),
  first('members', `/projects/library/members?entityname=person-${NAME}`),
  ...pages('groups', 'others', '/usergroups'),
  first('groups', `/usergroups?group_name=${WORD}`),
  first('groups', `/usergroups/search?groupname=${WORD}`),
  ...pages('labels', 'others', '/labels', '&scope=g'),
  ...pages('labels', 'others', '/labels', '&scope=p&project_id=1'),
  first('labels', `/labels?scope=g&name=${WORD}`),
  ...pages('quotas', 'projects', '/quotas'),
  ...pages('quotas', 'projects', '/quotas', '&sort=-used.storage'),
]

export type ListTimes = { list: string; name: string; smallMs: number; fullMs: number }[]

/** p50 of each page of the lists about people and projects in a small and in a large installation, with the worst ratio of each list. */
export async function accounts(say: (text: string) => void): Promise<{ times: ListTimes; lists: Shown }> {
  await using subject = await haven('haven')
  const admin = basic('admin', ADMIN_PASSWORD)
  const member = basic(MEMBER.username, MEMBER.password)
  say('accounts: small')
  await grow(subject, null, SMALL)
  await addMember(subject, admin)
  const small = await measure(subject, SMALL, { admin, member })
  say('accounts: full')
  await grow(subject, SMALL, FULL)
  const full = await measure(subject, FULL, { admin, member })
  const times = probes.map(({ list, name }, n) => ({ list, name, smallMs: small[n]!, fullMs: full[n]! }))
  const worst: Record<string, number> = {}
  for (const { list, smallMs, fullMs } of times) worst[list] = Math.max(worst[list] ?? 0, fullMs / smallMs)
  return { times, lists: { values: worst } }
}

async function measure(subject: Subject, size: Size, as: { admin: string; member: string }): Promise<number[]> {
  const p50s: number[] = []
  for (const probe of probes) {
    const asked = { ...subject, headers: async () => ({ authorization: as[probe.as ?? 'admin'] }) }
    const operation = { kind: 'read', method: 'GET', paths: [probe.path(size)], status: 200, bytes: -1 } as const
    await run(asked, 'none', { operation, connections: 1, seconds: 0.2 })
    p50s.push((await run(asked, 'none', { operation, connections: 1, seconds: 0.8 })).p50Ms)
  }
  return p50s
}

async function addMember(subject: Subject, authorization: string): Promise<void> {
  const { username, password } = MEMBER
  const body = Buffer.from(JSON.stringify({ username, password, email: `${username}@example.com`, realname: username }))
  const headers = { authorization, 'content-type': 'application/json' }
  await expectStatus(201, call(subject, 'POST', '/api/v2.0/users', { headers, body }), 'a user')
  await subject.installation!.query(
    `insert into identity.grants (principal_kind, principal_id, role_id, node_kind, project_id)
     select 'user', u.id, 2, 'project', p.id from identity.users u, projects.projects p
      where u.username_key = $1 and p.name_key like 'team-%' order by p.id limit ${OF_ONE_MEMBER}`,
    [username],
  )
}
