import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from '@jest/globals'
import { layers, owners, type Layer } from './picture.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

type Source = { file: string; package: string; text: string; isTest: boolean }

function* filesBelow(folder: string): Generator<string> {
  for (const entry of readdirSync(folder)) {
    if (entry === 'node_modules' || entry === 'gen') continue
    const path = join(folder, entry)
    if (statSync(path).isDirectory()) yield* filesBelow(path)
    else if (path.endsWith('.ts')) yield path
  }
}

const packageFolders = ['proto', 'test', ...children('services'), ...children('services/lib')]
const sources = packageFolders.flatMap((folder) =>
  [...filesBelow(join(root, folder))].map((file): Source => {
    const name = relative(root, file)
    const isTest = name.endsWith('.test.ts') || name.includes('/test/') || name.startsWith('test/')
    return { file: name, package: packageName(folder), text: readFileSync(file, 'utf8'), isTest }
  }),
)

function children(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !['lib', 'decisions', 'node_modules'].includes(entry.name))
    .map((entry) => join(folder, entry.name))
}

function packageName(folder: string): string {
  return folder.split('/').at(-1)!
}

function importsOf(source: Source): string[] {
  const found = source.text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)
  return [...found].map((match) => match[1]!)
}

const layerOf = (name: string): Layer => {
  const layer = layers.find(({ packages }) => packages.includes(name))
  if (!layer) throw new Error(`package ${name} is not in the picture: add it to test/architecture/picture.ts`)
  return layer
}

describe('the direction of imports', () => {
  it('has every package in the picture', () => {
    const drawn = layers.flatMap((layer) => layer.packages)
    expect([...new Set(sources.map((source) => source.package))].sort()).toEqual([...drawn].sort())
  })

  it('goes from the outside in, and within a row only to the left', () => {
    expect(wrongImports(sources)).toEqual([])
  })

  it('would see an import that goes the wrong way', () => {
    const text = ['import { putManifest } from', "'@haven/artifacts'"].join(' ')
    const planted = ['db', 'identity', 'foundation'].map((name) => ({ file: name, package: name, text, isTest: false }))
    expect(wrongImports(planted)).toEqual(['db imports artifacts', 'identity imports artifacts'])
  })

  it('reaches another package only by its name', () => {
    const wrong = sources.flatMap((source) =>
      importsOf(source)
        .filter((name) => name.startsWith('.'))
        .map((name) => relative(root, join(root, source.file, '..', name)))
        .filter((target) => !packageFolders.some((folder) => isIn(folder, source.file) && isIn(folder, target)))
        .map((target) => `${source.file} imports ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('lets black-box tests know no service', () => {
    const known = ['proto', 'testkit', 'test']
    const wrong = sources
      .filter((source) => source.package === 'test')
      .flatMap((source) => importsOf(source).map((name) => ({ source, name })))
      .filter(({ name }) => name.startsWith('@haven/') && !known.includes(name.split('/')[1]!))
      .map(({ source, name }) => `${source.file} imports ${name}`)
    expect(wrong).toEqual([])
  })

  it('keeps I/O out of the pure libraries', () => {
    const pure = layers.find((layer) => layer.name === 'pure')!.packages
    const allowed = new Set(['node:crypto', 'node:util', 'node:fs', 'node:url'])
    const wrong = sources
      .filter((source) => !source.isTest && pure.includes(source.package))
      .flatMap((source) => importsOf(source).map((name) => ({ source, name })))
      .filter(({ source, name }) => name.startsWith('node:') && (!allowed.has(name) || isFileAccess(source, name)))
      .map(({ source, name }) => `${source.file} imports ${name}`)
    expect(wrong).toEqual([])
  })
})

function wrongImports(among: readonly Source[]): string[] {
  return among
    .filter((source) => !source.isTest)
    .flatMap((source) =>
      importsOf(source)
        .filter((name) => name.startsWith('@haven/'))
        .map((name) => name.split('/')[1]!)
        .filter((target) => target !== source.package && !mayImport(source.package, target))
        .map((target) => `${source.file} imports ${target}`),
    )
}

/** Only config may read a file: the one that a setting names. */
const isFileAccess = (source: Source, name: string) => name === 'node:fs' && source.package !== 'config'

const isIn = (folder: string, file: string) => file.startsWith(`${folder}/`)

function mayImport(from: string, to: string): boolean {
  const [outer, inner] = [layerOf(from), layerOf(to)]
  if (inner === outer) return outer.inOrder && outer.packages.indexOf(to) < outer.packages.indexOf(from)
  return layers.indexOf(inner) < layers.indexOf(outer) && outer.mayUse.includes(inner.name)
}

describe('the owner of each table', () => {
  it('is the only package whose SQL names it', () => {
    expect(foreignTables(sources)).toEqual([])
  })

  it('would see a statement on a table of somebody else', () => {
    const text = "const find = statement('find', `select id from projects.projects where name = $1`)"
    const planted = ['projects', 'artifacts'].map((name) => ({ file: name, package: name, text, isTest: false }))
    expect(foreignTables(planted)).toEqual(['artifacts names projects.projects, which projects owns'])
    const list = { file: 'list', package: 'artifacts', text: 'from: Prisma.sql`projects.labels l`,', isTest: false }
    expect(foreignTables([list])).toEqual(['list names projects.labels, which projects owns'])
  })

  it('is the only package that asks Prisma for it', () => {
    const modelOwners = prismaModels()
    const wrong = sources
      .filter((source) => !source.isTest && !['db', 'testkit'].includes(source.package))
      .flatMap((source) =>
        [
          ...source.text.matchAll(
            /\b(?:prisma|tx|db)\.([a-z]\w+)\.(?:find|create|update|delete|upsert|count|aggregate|group)/g,
          ),
        ]
          .map((match) => match[1]!)
          .filter((model) => modelOwners[model] !== undefined && modelOwners[model] !== source.package)
          .map((model) => `${source.file} uses ${model}, which ${modelOwners[model]} owns`),
      )
    expect(wrong).toEqual([])
  })
})

function foreignTables(among: readonly Source[]): string[] {
  const schemas = Object.keys(owners).filter((name) => !name.includes('.'))
  const named = new RegExp(`\\b(${schemas.join('|')})\\.([a-z_]+)\\b`, 'g')
  return among
    .filter((source) => !source.isTest && !['db', 'testkit'].includes(source.package))
    .flatMap((source) =>
      sqlTexts(source.text).flatMap((sql) =>
        [...sql.matchAll(named)]
          .map(([table]) => ({ table, owner: owners[table] ?? owners[table.split('.')[0]!] }))
          .filter(({ owner }) => owner !== source.package)
          .map(({ table, owner }) => `${source.file} names ${table}, which ${owner} owns`),
      ),
    )
}

/** Template and string literals that look like a statement, and templates that hold only its table (`listRows`). */
function sqlTexts(text: string): string[] {
  const literals = text.matchAll(/`([^`]*)`|'([^'\n]*)'/g)
  return [...literals].flatMap(([, template, plain]) => {
    const literal = template ?? plain ?? ''
    const isStatement = /\b(select|insert into|update|delete from|with|from|join)\b/i.test(literal)
    return isStatement || /^[a-z]+\.[a-z_]+(?: [a-z]+)?$/.test(template ?? '') ? [literal] : []
  })
}

function prismaModels(): Record<string, string> {
  const schema = readFileSync(join(root, 'services/lib/db/prisma/schema.prisma'), 'utf8')
  const models = schema.matchAll(/^model (\w+) \{[\s\S]*?@@map\("(\w+)"\)[\s\S]*?@@schema\("(\w+)"\)/gm)
  return Object.fromEntries(
    [...models].map(([, model, table, name]) => [
      model![0]!.toLowerCase() + model!.slice(1),
      (owners[`${name}.${table}`] ?? owners[name!])!,
    ]),
  )
}
