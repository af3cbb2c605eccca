// Writes what the images hold, from this tree: `node deploy/images/bundle.ts FOLDER`. Below FOLDER lie `shared`, the code that two services
// or more load, so that their images have that layer in common; a folder for each service with the rest; and `owned`, what it may write to.
// `haven up` runs what it writes, too: of `shared` and `launcher`.
// The same tree gives the same bytes, times and modes: times are SOURCE_DATE_EPOCH, or 1970.
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, transformSync, type Metafile, type Plugin } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))
const programs = globSync('services/*/src/main.ts', { cwd: root })
  .map((path) => path.split('/')[1]!)
  .sort()
/** Holds every service: it runs any set of them in one process, and the commands. */
const launcher = 'launcher'
const services = programs.filter((name) => name !== launcher)

/** Files that code looks for beside itself, where it finds them beside the bundles. */
const assets: { from: string; to: string; for: readonly string[] | 'shared' }[] = [
  { from: 'deploy/images/healthy.js', to: 'lib/healthy.js', for: 'shared' },
  { from: 'proto/src/gen/contract.json', to: 'lib/gen/contract.json', for: 'shared' },
  { from: 'proto/src/gen/openapi/harbor-v2.0.json', to: 'lib/gen/openapi/harbor-v2.0.json', for: 'shared' },
  { from: 'services/lib/db/prisma/migrations', to: 'prisma/migrations', for: 'shared' },
  { from: 'portal/public', to: 'portal', for: ['proxy', launcher] },
  ...['swagger-ui.css', 'swagger-ui-bundle.js', 'swagger-ui-standalone-preset.js'].map((name) => ({
    from: join(swaggerUi(), name),
    to: join('swagger-ui', name),
    for: ['core', launcher],
  })),
]

/** What only the commands look for that start a machine of its own, which an image does not. */
const absent = ['../main.ts', '../../../../node_modules/.cache/compiled']

/** What a thread of its own runs. As TypeScript it would have Node load its compiler into the process, to strip types of one file. */
const worker = 'services/lib/storage/src/sum-worker.ts'
const workerAsWritten = './sum-worker.ts'
const workerAsBundled = './sum-worker.js'

/** Prisma's compiler, which its client imports as a text in base64: text and source of the text would stay in memory, 4.6 MB. */
const compilerAsText = /query_compiler_\w+\.postgresql\.wasm-base64\.mjs$/
const compilerFile = 'lib/query-compiler.wasm'

const [folder] = process.argv.slice(2)
if (folder === undefined) throw new Error('usage: node deploy/images/bundle.ts FOLDER')
const epoch = Number(process.env.SOURCE_DATE_EPOCH || '0')

rmSync(folder, { recursive: true, force: true })
let compiler: Buffer | null = null
/** Lets code read from files beside it what its source says in another way. */
const filesBeside: Plugin = {
  name: 'files-beside',
  setup({ onLoad }) {
    // The client does Buffer.from(wasm, 'base64'), which asks an object for its value: read then, and kept by nobody.
    onLoad({ filter: compilerAsText }, ({ path }) => {
      compiler = Buffer.from(/"([\w+/=]+)"/.exec(readFileSync(path, 'utf8'))![1]!, 'base64')
      const file = `new URL('./${basename(compilerFile)}', import.meta.url)`
      return {
        contents: `import { readFileSync } from 'node:fs'; export const wasm = { valueOf: () => readFileSync(${file}) }`,
      }
    })
    onLoad({ filter: /running-sum\.ts$/ }, ({ path }) => ({
      contents: readFileSync(path, 'utf8').replace(workerAsWritten, workerAsBundled),
      loader: 'ts',
    }))
  },
}

const { outputs, code } = await bundle()
place(folder, outputs, code)
for (const name of programs) refuseMissing(folder, name)
settle(folder)

async function bundle(): Promise<{ outputs: Metafile['outputs']; code: Map<string, Uint8Array> }> {
  const { metafile, outputFiles } = await build({
    absWorkingDir: root,
    // One folder for all, so that a file beside the code has one path from whichever part of it.
    outdir: 'lib',
    entryPoints: Object.fromEntries(programs.map((name) => [name, `services/${name}/src/main.ts`])),
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    chunkNames: '[name]-[hash]',
    // Sources stay in memory for as long as the process runs. Names stay, and lines of a length that a stack trace can point at.
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 120,
    // Native parts that are optional: the same code serves every processor.
    external: ['pg-native', 'msgpackr-extract'],
    alias: {
      'swagger-ui-dist/absolute-path': './deploy/images/swagger-ui.cjs',
      'body-parser': './deploy/images/body-parser.cjs',
    },
    // For packages in CommonJS.
    banner: {
      js: "import { createRequire as requireBeside } from 'node:module'; const require = requireBeside(import.meta.url), __filename = import.meta.filename, __dirname = import.meta.dirname;",
    },
    plugins: [filesBeside],
    metafile: true,
    write: false,
    logLevel: 'warning',
  })
  return {
    outputs: metafile.outputs,
    code: new Map(outputFiles.map(({ path, contents }) => [path.slice(root.length), contents])),
  }
}

function place(folder: string, outputs: Metafile['outputs'], code: ReadonlyMap<string, Uint8Array>) {
  const loads = new Map(programs.map((name) => [name, reachable(outputs, `lib/${name}.js`)]))
  const byServices = (file: string) => services.filter((name) => loads.get(name)!.has(file))
  const write = (layer: string, file: string, contents: Uint8Array | string) => {
    const path = join(folder, layer, 'app', file)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, contents)
  }
  write('shared', 'package.json', '{ "type": "module" }\n')
  for (const [file, contents] of code) {
    if (byServices(file).length > 1) write('shared', file, contents)
    else {
      for (const name of programs.filter((name) => loads.get(name)!.has(file)))
        write(name, file === `lib/${name}.js` ? 'lib/main.js' : file, contents)
    }
  }
  write('shared', compilerFile, compiler!)
  write('shared', join('lib', workerAsBundled), transformSync(readFileSync(join(root, worker)), { loader: 'ts' }).code)
  for (const asset of assets) {
    for (const layer of asset.for === 'shared' ? ['shared'] : asset.for)
      cpSync(join(root, asset.from), join(folder, layer, 'app', asset.to), { recursive: true })
  }
  for (const name of ['blobs', 'logs', 'tls']) mkdirSync(join(folder, 'owned/data', name), { recursive: true })
}

/** Every file that a program may load. */
function reachable(outputs: Metafile['outputs'], entry: string): Set<string> {
  const found = new Set([entry])
  for (const file of found) {
    for (const { path, external } of outputs[file]!.imports) if (!external) found.add(path)
  }
  return found
}

/** Code that looks for a file beside itself which no layer brings would fail only when it runs. */
function refuseMissing(folder: string, name: string) {
  const layers = ['shared', name].map((layer) => join(folder, layer, 'app'))
  for (const layer of layers) {
    for (const file of globSync('lib/*.js', { cwd: layer })) {
      // Lines are broken in texts, too.
      const text = readFileSync(join(layer, file), 'utf8').replaceAll('\\\n', '')
      if (/import\.meta\.resolve\(/.test(text)) throw new Error(`${file} resolves the name of a package as it runs`)
      for (const [, beside] of text.matchAll(/new URL\(["'](\.[^"']+)["'],\s*import\.meta\.url\)/g)) {
        const isThere = layers.some((layer) => existsSync(join(layer, 'lib', beside!)))
        if (!isThere && !absent.includes(beside!)) throw new Error(`${file} of ${name} needs ${beside}: an asset`)
      }
    }
  }
}

/** The same modes and times wherever and whenever it was made; children first, since writing them touches their folder. */
function settle(path: string) {
  const isFolder = statSync(path).isDirectory()
  if (isFolder) for (const name of readdirSync(path)) settle(join(path, name))
  chmodSync(path, isFolder ? 0o755 : 0o644)
  utimesSync(path, epoch, epoch)
}

/** Its folder from the root of this tree. */
function swaggerUi(): string {
  const express = createRequire(join(root, 'services/core/package.json')).resolve('swagger-ui-express')
  const dist = createRequire(express).resolve('swagger-ui-dist/package.json')
  return dirname(dist).slice(root.length)
}
