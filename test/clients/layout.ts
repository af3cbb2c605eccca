import { createHash, randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { findTool } from '@haven/testkit/tools'
import type { Descriptor } from './site.ts'
import { must } from './tools.ts'

type LayoutOptions = {
  /** More than one makes an index. */
  architectures?: string[]
  compression?: 'gzip' | 'zstd'
  /** What the image prints when it is run. */
  says?: string
  tag?: string
  /** Puts more files into the second layer. */
  fill?: (root: string) => void
}

const json = (value: object) => Buffer.from(JSON.stringify(value))
const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** Writes an OCI image layout: for each architecture an image of two layers, busybox and a random file. Returns what its tag names. */
export async function writeLayout(folder: string, options: LayoutOptions = {}): Promise<Descriptor> {
  const { architectures = ['amd64'], compression = 'gzip', says = 'hello from haven', tag = '1', fill } = options
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true })
  const put = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = digestOf(bytes)
    writeFileSync(join(folder, 'blobs/sha256', digest.slice('sha256:'.length)), bytes)
    return { mediaType, digest, size: bytes.length }
  }
  const compress = compression === 'gzip' ? gzipSync : zstdCompressSync
  const busybox = await tarOf((root) => {
    mkdirSync(join(root, 'bin'))
    copyFileSync(findTool('busybox')!, join(root, 'bin/busybox'))
    symlinkSync('busybox', join(root, 'bin/sh'))
  })
  const images: Descriptor[] = []
  for (const architecture of architectures) {
    const tars = [
      busybox,
      await tarOf((root) => {
        writeFileSync(join(root, 'random'), randomBytes(65_536))
        fill?.(root)
      }),
    ]
    const platform = { os: 'linux', architecture }
    const config = put(
      'application/vnd.oci.image.config.v1+json',
      json({
        ...platform,
        config: { Cmd: ['/bin/busybox', 'echo', says] },
        rootfs: { type: 'layers', diff_ids: tars.map(digestOf) },
      }),
    )
    const layers = tars.map((tar) => put(`application/vnd.oci.image.layer.v1.tar+${compression}`, compress(tar)))
    const mediaType = 'application/vnd.oci.image.manifest.v1+json'
    images.push({ ...put(mediaType, json({ schemaVersion: 2, mediaType, config, layers })), platform })
  }
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const top =
    images.length === 1 ? images[0]! : put(mediaType, json({ schemaVersion: 2, mediaType, manifests: images }))
  writeFileSync(join(folder, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
  const named = { ...top, annotations: { 'org.opencontainers.image.ref.name': tag } }
  writeFileSync(join(folder, 'index.json'), json({ schemaVersion: 2, manifests: [named] }))
  return top
}

/** A tar, as bytes, of what `fill` puts into a folder. */
export async function tarOf(fill: (root: string) => void): Promise<Buffer> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-layer-'))
  try {
    mkdirSync(join(folder, 'root'))
    fill(join(folder, 'root'))
    await must('tar', ['--numeric-owner', '-C', join(folder, 'root'), '-cf', join(folder, 'layer.tar'), '.'])
    return readFileSync(join(folder, 'layer.tar'))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
