import { ADMIN_PASSWORD } from '@haven/testkit'

/** Calls the management API as somebody. @throws with status and body when it refuses. */
export async function api(url: string, method: string, path: string, options: { body?: object; as?: string } = {}) {
  const credentials = options.as ?? `admin:${ADMIN_PASSWORD}`
  const response = await fetch(`${url}/api/v2.0${path}`, {
    method,
    headers: {
      authorization: `Basic ${Buffer.from(credentials).toString('base64')}`,
      ...(options.body ? { 'content-type': 'application/json' } : {}),
    },
    ...(options.body ? { body: JSON.stringify(options.body) } : {}),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
  return text === '' ? null : (JSON.parse(text) as unknown)
}

export const PASSWORD = 'Passw0rd-of-tests'

/** Harbor's ids of the project roles. */
export const roles = { projectAdmin: 1, developer: 2, guest: 3, maintainer: 4, limitedGuest: 5 } as const

/** A private project `name` with one account for each of the roles given, named `<name>-<role>`, and a stranger `<name>-stranger`. */
export async function privateProject(url: string, name: string, members: readonly (keyof typeof roles)[]) {
  await api(url, 'POST', '/projects', { body: { project_name: name, metadata: { public: 'false' } } })
  for (const who of [...members, 'stranger']) {
    const username = `${name}-${who.toLowerCase()}`
    const user = { username, password: PASSWORD, email: `${username}@example.test`, realname: who, comment: '' }
    await api(url, 'POST', '/users', { body: user })
    if (who === 'stranger') continue
    const body = { role_id: roles[who as keyof typeof roles], member_user: { username } }
    await api(url, 'POST', `/projects/${name}/members`, { body })
  }
}
