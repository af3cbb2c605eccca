/**
 * What a registry is, in one file and in memory: the reference that runs are compared with (reliability.md §6). Blobs and manifests are
 * numbers into a plan; what time does is an operation, `age`, after which every promise is over.
 */

export type Manifest = {
  /** Config and layers. */
  readonly blobs: readonly number[]
  /** Of an index. */
  readonly children: readonly number[]
  readonly subject: number | null
}
export type Plan = { readonly blobs: readonly number[]; readonly manifests: readonly Manifest[] }

export type Operation =
  | {
      readonly do: 'push blob' | 'head blob' | 'get blob' | 'delete blob'
      readonly repo: number
      readonly blob: number
    }
  | { readonly do: 'mount'; readonly repo: number; readonly from: number; readonly blob: number }
  | { readonly do: 'open upload'; readonly slot: number; readonly repo: number; readonly blob: number }
  | { readonly do: 'append' | 'finish upload' | 'cancel upload' | 'where is upload'; readonly slot: number }
  | { readonly do: 'put manifest'; readonly repo: number; readonly manifest: number; readonly tag: string | null }
  | { readonly do: 'get manifest' | 'head manifest'; readonly repo: number; readonly manifest: number }
  | { readonly do: 'delete manifest' | 'list referrers'; readonly repo: number; readonly manifest: number }
  | { readonly do: 'get tag' | 'delete tag'; readonly repo: number; readonly tag: string }
  | { readonly do: 'list tags'; readonly repo: number }
  | { readonly do: 'age' }
  | { readonly do: 'collect garbage'; readonly untagged: boolean; readonly killAfterMs: number | null }
  /** The second front process is killed and started anew, to die by itself at a fault point when one is named. */
  | { readonly do: 'restart'; readonly fault: string | null }
  | { readonly do: 'kill front' }

/** How many pieces an upload is sent in. */
export const PIECES = 3
/** Where the n-th piece of so many bytes ends. */
export const pieceEnd = (size: number, n: number): number => Math.ceil((size * n) / PIECES)

type StoredManifest = { live: boolean; promised: boolean; old: boolean }
type Repository = {
  /** Blobs by whether they are promised here. */
  links: Record<number, boolean>
  manifests: Record<number, StoredManifest>
  tags: Record<string, number>
}
type Upload = { repo: number; blob: number; offset: number; old: boolean }

export type World = {
  /** By whether they are promised. */
  blobs: Record<number, boolean>
  repositories: Repository[]
  uploads: Record<number, Upload>
}

export const emptyWorld = (repositories: number): World => ({
  blobs: {},
  repositories: Array.from({ length: repositories }, () => ({ links: {}, manifests: {}, tags: {} })),
  uploads: {},
})

/**
 * What the operation may answer in this world, and the world after it. Jobservice ends uploads that nobody touched for a day, every ten
 * minutes and when it starts: an old one may have gone before it is asked for.
 */
export function step(plan: Plan, before: World, op: Operation): { before: World; after: World; answer: string }[] {
  const worlds = [before]
  if ('slot' in op && before.uploads[op.slot]?.old) {
    const { [op.slot]: _ended, ...uploads } = before.uploads
    worlds.push({ ...before, uploads })
  }
  return worlds.map((each) => {
    const after = structuredClone(each)
    return { before: each, answer: carryOut(plan, after, op), after }
  })
}

function carryOut(plan: Plan, world: World, op: Operation): string {
  switch (op.do) {
    case 'push blob':
      link(world, op.repo, op.blob)
      return 'created'
    case 'mount':
      if (world.repositories[op.from]!.links[op.blob] === undefined) return 'not there'
      link(world, op.repo, op.blob)
      return 'created'
    case 'head blob':
      if (world.repositories[op.repo]!.links[op.blob] === undefined) return 'not there'
      link(world, op.repo, op.blob) // a promise
      return 'there'
    case 'get blob':
      return world.repositories[op.repo]!.links[op.blob] === undefined ? 'not there' : 'there'
    case 'delete blob': {
      const { links } = world.repositories[op.repo]!
      if (links[op.blob] === undefined) return 'not there'
      if (live(world, op.repo).some((m) => plan.manifests[m]!.blobs.includes(op.blob))) return 'refused'
      delete links[op.blob]
      return 'deleted'
    }
    case 'open upload':
      world.uploads[op.slot] = { repo: op.repo, blob: op.blob, offset: 0, old: false }
      return 'opened'
    case 'where is upload':
    case 'append':
    case 'finish upload':
    case 'cancel upload':
      return onUpload(plan, world, op)
    case 'put manifest':
      return put(plan, world, op)
    case 'get manifest':
    case 'head manifest': {
      const stored = world.repositories[op.repo]!.manifests[op.manifest]
      if (!stored?.live) return 'not there'
      stored.promised = true
      return 'there'
    }
    case 'get tag': {
      const { tags, manifests } = world.repositories[op.repo]!
      const manifest = tags[op.tag]
      if (manifest === undefined) return 'not there'
      manifests[manifest]!.promised = true
      return `manifest ${manifest}`
    }
    case 'delete tag': {
      const { tags } = world.repositories[op.repo]!
      if (tags[op.tag] === undefined) return 'not there'
      delete tags[op.tag]
      return 'deleted'
    }
    case 'delete manifest':
      return deleteManifest(plan, world, op.repo, op.manifest)
    case 'list tags':
      return Object.keys(world.repositories[op.repo]!.tags).toSorted().join(' ')
    case 'list referrers':
      return referrers(plan, world, op.repo, op.manifest).join(' ')
    case 'age':
      age(world)
      return 'done'
    case 'collect garbage':
      collect(plan, world, op.untagged)
      return 'done'
    case 'restart':
    case 'kill front':
      return 'done'
  }
}

function link(world: World, repo: number, blob: number) {
  world.blobs[blob] = true
  world.repositories[repo]!.links[blob] = true
}

type UploadOperation = Extract<Operation, { do: 'append' | 'finish upload' | 'cancel upload' | 'where is upload' }>

function onUpload(plan: Plan, world: World, op: UploadOperation): string {
  const upload = world.uploads[op.slot]
  if (!upload) return 'not there'
  const where = `at ${upload.offset}`
  if (op.do === 'append') {
    const size = plan.blobs[upload.blob]!
    const next = Array.from({ length: PIECES }, (_, n) => pieceEnd(size, n + 1)).find((end) => end > upload.offset)
    upload.offset = next ?? size
    upload.old = false
  } else if (op.do !== 'where is upload') {
    if (op.do === 'finish upload') link(world, upload.repo, upload.blob)
    delete world.uploads[op.slot]
  }
  return where
}

function put(plan: Plan, world: World, { repo, manifest, tag }: Extract<Operation, { do: 'put manifest' }>): string {
  const { links, manifests, tags } = world.repositories[repo]!
  const { blobs, children, subject } = plan.manifests[manifest]!
  if (blobs.some((blob) => links[blob] === undefined)) return 'refused'
  for (const blob of blobs) link(world, repo, blob)
  for (const named of subject === null ? children : [...children, subject]) {
    if (manifests[named]?.live) manifests[named].promised = true
  }
  const known = manifests[manifest]
  manifests[manifest] = { live: true, promised: true, old: known?.live ? known.old : false }
  if (tag !== null) tags[tag] = manifest
  return 'created'
}

const live = (world: World, repo: number): number[] =>
  Object.entries(world.repositories[repo]!.manifests)
    .filter(([, stored]) => stored.live)
    .map(([manifest]) => Number(manifest))

const referrers = (plan: Plan, world: World, repo: number, of: number): number[] =>
  live(world, repo).filter((m) => plan.manifests[m]!.subject === of)

const hasParent = (plan: Plan, world: World, repo: number, of: number): boolean =>
  live(world, repo).some((m) => plan.manifests[m]!.children.includes(of))

const hasTag = (world: World, repo: number, manifest: number): boolean =>
  Object.values(world.repositories[repo]!.tags).includes(manifest)

/** These and their accessories at any depth, without those that an index names. */
function tree(plan: Plan, world: World, repo: number, roots: readonly number[]): Set<number> {
  const found = new Set(roots)
  for (const each of found) {
    for (const accessory of referrers(plan, world, repo, each)) {
      if (!hasParent(plan, world, repo, accessory)) found.add(accessory)
    }
  }
  return found
}

function bury(world: World, repo: number, doomed: Iterable<number>) {
  const { manifests, tags } = world.repositories[repo]!
  for (const manifest of doomed) {
    manifests[manifest]!.live = false
    for (const [tag, of] of Object.entries(tags)) if (of === manifest) delete tags[tag]
  }
}

function deleteManifest(plan: Plan, world: World, repo: number, manifest: number): string {
  if (!world.repositories[repo]!.manifests[manifest]?.live) return 'not there'
  if (hasParent(plan, world, repo, manifest)) return 'refused'
  let buried = tree(plan, world, repo, [manifest])
  bury(world, repo, buried)
  while (buried.size > 0) {
    const orphans = live(world, repo).filter(
      (m) =>
        [...buried].some((each) => plan.manifests[each]!.children.includes(m)) &&
        !hasTag(world, repo, m) &&
        !hasParent(plan, world, repo, m) &&
        !isAboutSomething(plan, world, repo, m),
    )
    buried = tree(plan, world, repo, orphans)
    bury(world, repo, buried)
  }
  return 'deleted'
}

function isAboutSomething(plan: Plan, world: World, repo: number, manifest: number): boolean {
  const { subject } = plan.manifests[manifest]!
  return subject !== null && world.repositories[repo]!.manifests[subject]?.live === true
}

function age(world: World) {
  for (const blob of Object.keys(world.blobs)) world.blobs[Number(blob)] = false
  for (const { links, manifests } of world.repositories) {
    for (const blob of Object.keys(links)) links[Number(blob)] = false
    for (const manifest of Object.values(manifests)) Object.assign(manifest, { promised: false, old: true })
  }
  for (const upload of Object.values(world.uploads)) upload.old = true
}

function collect(plan: Plan, world: World, untagged: boolean) {
  for (const repo of world.repositories.keys()) {
    const { manifests, links } = world.repositories[repo]!
    const unclaimed = () =>
      live(world, repo).filter(
        (m) => !manifests[m]!.promised && !hasTag(world, repo, m) && !hasParent(plan, world, repo, m),
      )
    if (untagged) {
      const roots = unclaimed().filter((m) => manifests[m]!.old && plan.manifests[m]!.subject === null)
      bury(world, repo, roots)
    }
    for (let purged = true; purged;) {
      const dead = Object.keys(manifests)
        .map(Number)
        .filter((m) => !manifests[m]!.live)
      const dependants = unclaimed().filter((m) => {
        const { subject } = plan.manifests[m]!
        return subject === null ? dead.some((d) => plan.manifests[d]!.children.includes(m)) : dead.includes(subject)
      })
      bury(world, repo, dependants)
      const gone = dead.filter((m) => referrers(plan, world, repo, m).every((r) => hasTag(world, repo, r)))
      for (const m of gone) delete manifests[m]
      purged = gone.length > 0
    }
    // A tombstone keeps its blobs until it is purged.
    const needed = new Set(Object.keys(manifests).flatMap((m) => plan.manifests[Number(m)]!.blobs))
    for (const [blob, promised] of Object.entries(links)) {
      if (!promised && !needed.has(Number(blob))) delete links[Number(blob)]
    }
  }
  for (const [blob, promised] of Object.entries(world.blobs)) {
    const isLinked = world.repositories.some(({ links }) => links[Number(blob)] !== undefined)
    if (!promised && !isLinked) delete world.blobs[Number(blob)]
  }
  for (const [slot, { old }] of Object.entries(world.uploads)) if (old) delete world.uploads[Number(slot)]
}
