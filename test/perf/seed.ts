import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { basic, call, expectStatus } from './http.ts'
import type { Subject } from './subjects.ts'

/** `library` is there in every Haven; the others do not care. */
export const REPOSITORY = 'library/bench'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'

type Descriptor = { mediaType: string; digest: string; size: number }
export type SeededImage = { manifest: { path: string; bytes: number; sha256: string }; blobs: Descriptor[] }

export const sha256 = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex')

/** Pushes one blob by the protocol that any client speaks. */
export async function seedBlob(subject: Subject, repository: string, body: Buffer): Promise<string> {
  const digest = `sha256:${sha256(body)}`
  if (subject.put) {
    subject.put(digest.slice('sha256:'.length), body)
    return digest
  }
  const headers = await pushHeaders(subject, repository)
  const what = `${subject.key}: a blob of ${body.byteLength} bytes`
  const opened = await expectStatus(202, call(subject, 'POST', `/v2/${repository}/blobs/uploads/`, { headers }), what)
  const location = new URL(opened.headers.location ?? '', `http://127.0.0.1:${subject.port}`)
  location.searchParams.set('digest', digest)
  const put = call(subject, 'PUT', location.pathname + location.search, {
    headers: { ...headers, 'content-type': 'application/octet-stream' },
    body,
  })
  await expectStatus(201, put, what)
  return digest
}

/** Where a blob is read: a registry's path, or the file's. */
export const blobPath = (subject: Subject, repository: string, digest: string) =>
  subject.put ? `/${digest.slice('sha256:'.length)}` : `/v2/${repository}/blobs/${digest}`

/** Pushes an image with layers of random bytes. */
export async function seedImage(
  subject: Subject,
  repository: string,
  tag: string,
  layerSizes: readonly number[],
): Promise<SeededImage> {
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } }),
  )
  const blobs: Descriptor[] = [
    { mediaType: CONFIG, digest: await seedBlob(subject, repository, config), size: config.byteLength },
  ]
  for (const size of layerSizes) {
    blobs.push({ mediaType: LAYER, digest: await seedBlob(subject, repository, randomBytes(size)), size })
  }
  const headers = await pushHeaders(subject, repository)
  return { manifest: await seedManifest(subject, headers, `/v2/${repository}/manifests/${tag}`, blobs), blobs }
}

async function seedManifest(
  subject: Subject,
  headers: Record<string, string>,
  path: string,
  blobs: readonly Descriptor[],
) {
  const [config, ...layers] = blobs
  const text = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers, annotations: { path } })
  const put = call(subject, 'PUT', path, { headers: { ...headers, 'content-type': MANIFEST }, body: Buffer.from(text) })
  await expectStatus(201, put, `${subject.key}: ${path}`)
  return { path, bytes: text.length, sha256: sha256(text) }
}

export const pushHeaders = (subject: Subject, ...repositories: string[]) =>
  subject.headers({ repositories, actions: 'pull,push' })

/** Pushes manifests of one config under many tags, each another one; returns their paths. */
export async function seedTags(subject: Subject, repository: string, count: number): Promise<string[]> {
  const blobs = [await seedConfig(subject, repository)]
  const headers = await pushHeaders(subject, repository)
  const paths = Array.from({ length: count }, (_, n) => `/v2/${repository}/manifests/t${n}`)
  const lanes = Array.from({ length: 8 }, async (_, lane) => {
    for (let n = lane; n < count; n += 8) await seedManifest(subject, headers, paths[n]!, blobs)
  })
  await Promise.all(lanes)
  return paths
}

/** The config that manifests of the loads name. */
export async function seedConfig(subject: Subject, repository: string): Promise<Descriptor> {
  const body = Buffer.from('{}')
  return { mediaType: CONFIG, digest: await seedBlob(subject, repository, body), size: body.byteLength }
}

/** Tags as Distribution keeps them, a folder each: pushing a hundred thousand would take it minutes. For lists, which read no more of a tag than its name. */
export function seedTagFolders(subject: Subject, repository: string, count: number): void {
  if (!subject.dataFolder) throw new Error(`${subject.key} keeps no tags in folders`)
  const tags = join(subject.dataFolder, 'docker/registry/v2/repositories', repository, '_manifests/tags')
  mkdirSync(tags, { recursive: true })
  for (let n = 0; n < count; n++) mkdirSync(join(tags, `t${String(n).padStart(7, '0')}`))
}

/** Of all seeded accounts. */
export const PASSWORD = 'Passw0rd'

/**
 * Accounts that share one hash, and their password with it. The salt of an argon2id hash lies within it; beside it, it only makes each a
 * hash of its own, as hashes are.
 */
export async function seedAccounts(subject: Subject, names: readonly string[]): Promise<void> {
  const user = { username: 'first', password: PASSWORD, email: 'first@example.com', realname: 'first' }
  const headers = { authorization: basic('admin', ADMIN_PASSWORD), 'content-type': 'application/json' }
  const body = Buffer.from(JSON.stringify(user))
  await expectStatus(201, call(subject, 'POST', '/api/v2.0/users', { headers, body }), 'a user')
  await subject.installation!.query(
    `with added as (
       insert into identity.users (username, username_key) select name, name from unnest($1::text[]) as names (name) returning id, username)
     insert into identity.credentials (user_id, kind, version, hash, salt)
     select a.id, 'password', c.version, c.hash, a.username
       from added a, identity.credentials c join identity.users u on u.id = c.user_id
      where u.username_key = 'first' and c.kind = 'password'`,
    [names],
  )
}
