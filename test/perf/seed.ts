import { createHash, randomBytes } from 'node:crypto'
import type { Subject } from './subjects.ts'

export const REPOSITORY = 'library/bench'

export type Seeded = { manifest: { bytes: number; sha256: string }; blobs: Record<number, string> }

/** Pushes one image `library/bench:1` and a blob of each size, by the protocol that any client speaks. Returns the digests by size. */
export async function seed(subject: Subject, sizes: readonly number[]): Promise<Seeded> {
  const headers = await subject.headers(REPOSITORY)
  const base = `http://127.0.0.1:${subject.port}/v2/${REPOSITORY}`
  const pushBlob = async (body: Buffer) => {
    const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`
    const opened = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers })
    const location = new URL(opened.headers.get('location') ?? '', base)
    location.searchParams.set('digest', digest)
    const put = await fetch(location, {
      method: 'PUT',
      headers: { ...headers, 'content-type': 'application/octet-stream' },
      body: new Uint8Array(body),
    })
    if (put.status !== 201) throw new Error(`${subject.name}: seeding a blob answered ${put.status}`)
    return { digest, size: body.byteLength }
  }
  const config = await pushBlob(
    Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [] } })),
  )
  const layers = []
  for (let n = 0; n < 6; n++) layers.push(await pushBlob(randomBytes(4096)))
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
    config: { mediaType: 'application/vnd.docker.container.image.v1+json', ...config },
    layers: layers.map((layer) => ({ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip', ...layer })),
  })
  const put = await fetch(`${base}/manifests/1`, {
    method: 'PUT',
    headers: { ...headers, 'content-type': 'application/vnd.docker.distribution.manifest.v2+json' },
    body: manifest,
  })
  if (put.status !== 201)
    throw new Error(`${subject.name}: seeding the manifest answered ${put.status} ${await put.text()}`)
  const blobs: Record<number, string> = {}
  for (const size of sizes) blobs[size] = (await pushBlob(randomBytes(size))).digest
  return { manifest: { bytes: manifest.length, sha256: createHash('sha256').update(manifest).digest('hex') }, blobs }
}
