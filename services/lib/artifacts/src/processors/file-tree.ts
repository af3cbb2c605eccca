import { posix } from 'node:path'

/** As Harbor's API shows files of a model. */
type FileNode = { name: string; type: 'file' | 'directory'; size?: number; children?: FileNode[] }
type Folder = Map<string, Folder | number>

/** Deeper than files lie. A path is a text that somebody pushed, and a tree is written by a function that calls itself. */
const MAX_DEPTH = 32

/**
 * Files by folder, folders first. Paths are only shown: none leads out of the tree, and those that are nowhere in it, or deeper than files
 * lie, are left out. Of two things under one name, the first counts.
 */
export function fileTreeOf(files: readonly { path: string; sizeBytes: number }[]): FileNode[] {
  const root: Folder = new Map()
  for (const { path, sizeBytes } of files) {
    const parts = posix.normalize(`/${path}`).split('/').filter(Boolean)
    if (parts.length > 0 && parts.length <= MAX_DEPTH) put(root, parts, path.endsWith('/') ? new Map() : sizeBytes)
  }
  return nodesOf(root)
}

function put(root: Folder, parts: readonly string[], what: Folder | number): void {
  let folder = root
  for (const part of parts.slice(0, -1)) {
    const next = folder.get(part) ?? new Map<string, Folder | number>()
    if (typeof next === 'number') return
    folder.set(part, next)
    folder = next
  }
  const name = parts.at(-1)!
  if (!folder.has(name)) folder.set(name, what)
}

const nodesOf = (folder: Folder): FileNode[] =>
  [...folder]
    .map(([name, what]): FileNode =>
      typeof what === 'number'
        ? { name, type: 'file', size: what }
        : { name, type: 'directory', children: nodesOf(what) },
    )
    .sort((a, b) => (a.type === b.type ? (a.name < b.name ? -1 : 1) : a.type === 'directory' ? -1 : 1))
