import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, describe, expect, it } from '@jest/globals'
import {
  bool,
  bytes,
  ConfigProblem,
  defineConfig,
  describeConfig,
  duration,
  file,
  int,
  list,
  oneOf,
  port,
  readConfig,
  secret,
  secretsOf,
  text,
  url,
  type ConfigOf,
  type Environment,
  type Settings,
} from './index.ts'

const folder = mkdtempSync(join(tmpdir(), 'haven-config-'))
afterAll(() => rmSync(folder, { recursive: true }))
function written(name: string, content: string) {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const registry = defineConfig('REGISTRY', {
  port: port({ default: 5000, doc: 'Port of the /v2 API.' }),
  blobReads: oneOf(['redirect', 'stream'], { default: 'stream', doc: 'How bytes | travel.' }),
  uploadExpiryMs: duration({ default: '24h', doc: 'An upload untouched for this long is swept.' }),
  maxBodyBytes: bytes({ default: '4MiB', doc: 'Longest body.' }),
  databaseUrl: url({ env: 'DATABASE_URL', protocols: ['postgres', 'postgresql'], doc: 'Postgres.' }),
  coreSecret: secret({ minLength: 8, refuse: ['not-a-secret'], doc: 'What core shows.' }),
  nickname: text({ optional: true, doc: 'A name.' }),
})
const given = { DATABASE_URL: 'postgres://haven:p%40ss@db/haven', REGISTRY_CORE_SECRET: 'correct horse' }

/** The problem that reading must end in. */
function problemOf(env: Environment, definition: Parameters<typeof readConfig>[0] = registry): ConfigProblem {
  try {
    readConfig(definition, env)
  } catch (error) {
    if (error instanceof ConfigProblem) return error
    throw error
  }
  throw new Error('the settings were accepted')
}

describe('readConfig', () => {
  it('gives typed values, with defaults for what is not given', () => {
    const config: ConfigOf<typeof registry> = readConfig(registry, { ...given, REGISTRY_UPLOAD_EXPIRY: '1h30m' })
    const reads: 'redirect' | 'stream' = config.blobReads
    const nickname: string | undefined = config.nickname
    expect([reads, nickname]).toEqual(['stream', undefined])
    expect(config).toMatchObject({ port: 5000, uploadExpiryMs: 5_400_000, maxBodyBytes: 4_194_304 })
    expect(config.databaseUrl).toBe(given.DATABASE_URL)
    expect(Object.isFrozen(config)).toBe(true)
  })

  it('takes an empty variable as not given', () => {
    expect(readConfig(registry, { ...given, REGISTRY_PORT: '' }).port).toBe(5000)
    expect(problemOf({ ...given, REGISTRY_CORE_SECRET: '' }).wrong[0]).toMatchObject({ given: null })
  })

  it('reports everything that is wrong at once: name, what was given, what was expected', () => {
    const problem = problemOf({ REGISTRY_PORT: 'banana', REGISTRY_BLOB_READS: 'both', REGISTRY_CORE_SECRET: 'short' })
    expect(problem.message).toBe(
      [
        '4 settings are wrong:',
        '  REGISTRY_PORT: "banana", expected a port number from 0 to 65535',
        '  REGISTRY_BLOB_READS: "both", expected redirect or stream',
        '  DATABASE_URL: not set, expected a URL that starts with postgres:// or postgresql:// (Postgres.)',
        '  REGISTRY_CORE_SECRET: ***, expected a secret of at least 8 characters (it has 5 characters)',
      ].join('\n'),
    )
    expect(problem.kind.exitCode).toBe(78)
  })

  it('refuses secrets that everybody knows', () => {
    expect(problemOf({ ...given, REGISTRY_CORE_SECRET: 'not-a-secret' }).message).toMatch(/publicly known/)
  })

  it('reads a secret from the file that NAME_FILE names, without its last line break', () => {
    const path = written('secret', 'from a file\n')
    const config = readConfig(registry, { DATABASE_URL: given.DATABASE_URL, REGISTRY_CORE_SECRET_FILE: path })
    expect(config.coreSecret).toBe('from a file')
  })

  it('refuses NAME beside NAME_FILE, and a file that is not there', () => {
    const path = join(folder, 'absent')
    expect(problemOf({ ...given, REGISTRY_CORE_SECRET_FILE: path }).message).toMatch(/only one of/)
    expect(problemOf({ DATABASE_URL: given.DATABASE_URL, REGISTRY_CORE_SECRET_FILE: path }).wrong).toEqual([
      {
        name: 'REGISTRY_CORE_SECRET_FILE',
        given: JSON.stringify(path),
        expected: 'the path of a readable file (ENOENT)',
      },
    ])
  })

  it.each([
    ['REGISTRY_BLOB_READ', 'REGISTRY_BLOB_READS'],
    ['REGISTRY_BLOBREADS', 'REGISTRY_BLOB_READS'],
    ['REGISTRY_PROT', 'REGISTRY_PORT'],
    ['REGISTRY_CORE_SERCET_FILE', 'REGISTRY_CORE_SECRET'],
  ])('takes %s for a misspelling of %s and does not print its value', (name, meant) => {
    const problem = problemOf({ ...given, [name]: 'hunter2' })
    expect(problem.message).toContain(`${name}: not the name of a setting, expected ${meant} (a misspelling?)`)
    expect(problem.message).not.toContain('hunter2')
  })

  it('lets other names of the prefix pass: those of a neighbour and those of Kubernetes', () => {
    const neighbour = defineConfig('REGISTRY', { sort: int({ default: 1, doc: '' }) })
    const env = { ...given, REGISTRY_SERVICE_HOST: '10.0.0.1', REGISTRY_PORT_5000_TCP_ADDR: '10.0.0.1' }
    expect(readConfig(registry, env).port).toBe(5000)
    expect(() => readConfig(registry, { ...env, REGISTRY_SORT: '2' })).toThrow(/REGISTRY_PORT/)
    expect(readConfig(registry, { ...env, REGISTRY_SORT: '2' }, [neighbour]).port).toBe(5000)
    expect(problemOf({ ...given, REGISTRY_PORT: 'tcp://10.0.0.1:5000' }).message).toMatch(/enableServiceLinks/)
  })
})

describe('secrets', () => {
  const config = readConfig(registry, given)

  it.each([
    ['inspect', inspect(config, { depth: 9 })],
    ['inspect of what holds it', inspect({ deps: { config } }, { depth: 9, showHidden: true })],
    ['JSON', JSON.stringify(config)],
    ['inspect of a list', inspect([config])],
  ])('do not show in %s', (_, printed) => {
    for (const hidden of ['correct horse', 'p%40ss', 'p@ss']) expect(printed).not.toContain(hidden)
    expect(printed).toContain('***')
    expect(printed).toContain('postgres://haven:***@db/haven')
  })

  it('are listed for a log to redact', () => {
    expect(secretsOf(config)).toEqual(['p%40ss', 'p@ss', 'correct horse'])
    expect(secretsOf({})).toEqual([])
  })

  it.each(['postgres://u:hunter2@', 'u:hunter2@host/db', 'mysql://u:hunter2@host', 'postgres://u:hunter2@h:x/db'])(
    'do not show when the URL is wrong: %s',
    (wrong) => {
      const { message } = problemOf({ ...given, DATABASE_URL: wrong })
      expect(message).toContain('DATABASE_URL')
      expect(message).not.toContain('hunter2')
    },
  )

  it('of a file are its content; the path may be seen', () => {
    const path = written('key.pem', 'BEGIN KEY')
    const withKey = readConfig(
      defineConfig('T', { key: file({ doc: '' }), other: file({ doc: '', optional: true }) }),
      {
        T_KEY_FILE: path,
      },
    )
    expect(withKey.key).toEqual({ path, text: 'BEGIN KEY' })
    expect(withKey.other).toBeUndefined()
    expect(inspect(withKey)).toContain(path)
    expect(inspect(withKey)).not.toContain('BEGIN KEY')
    expect(secretsOf(withKey)).toEqual(['BEGIN KEY'])
  })
})

describe('each kind', () => {
  const o = { doc: '' }
  const cases: [Settings[string], Record<string, unknown>, string[]][] = [
    [
      int({ ...o, min: -1, max: 10 }),
      { '-1': -1, '10': 10, '007': 7 },
      ['11', '-2', '1.5', '1e3', '0x1', ' 1', '9'.repeat(17)],
    ],
    [port(o), { '0': 0, '65535': 65535 }, ['65536', '-1', '80a', '']],
    [bool(o), { true: true, YES: true, '1': true, off: false, No: false, '0': false }, ['2', 'y', 'maybe']],
    [
      duration(o),
      { '0': 0, '90s': 90_000, '250ms': 250, '1d': 86_400_000, '1h30m': 5_400_000 },
      ['90', 's', '1.5h', '-1s', '1 h', '1y', '999999999999d'],
    ],
    [duration({ ...o, min: '1s', max: '1h' }), { '1s': 1000, '60m': 3_600_000 }, ['999ms', '61m']],
    [
      bytes(o),
      { '0': 0, '4096': 4096, '1kB': 1000, '64KiB': 65536, '16 MiB': 16_777_216, '5GB': 5e9, '1tib': 2 ** 40 },
      ['1K', '1.5MiB', '-1', 'MiB', '9999999999TiB'],
    ],
    [
      url(o),
      { 'https://a.example/b?c': 'https://a.example/b?c' },
      ['/relative', 'a.example', 'ftp://a.example', 'https://', 'http://a b/'],
    ],
    [text({ ...o, maxLength: 3 }), { abc: 'abc', 'ü€': 'ü€' }, ['abcd', 'a\nb', 'a\u0000']],
    [list(o), { 'a, b,,c ': ['a', 'b', 'c'] }, []],
  ]
  it.each(cases.map(([setting, good, bad]) => [setting.kind, setting, good, bad] as const))(
    '%s',
    (_, setting, good, bad) => {
      const definition = defineConfig('X', { value: setting })
      for (const [written, value] of Object.entries(good)) {
        expect(readConfig(definition, { X_VALUE: written }).value).toEqual(value)
      }
      for (const written of bad) expect(problemOf({ X_VALUE: written }, definition).wrong).toHaveLength(1)
    },
  )
})

describe('defineConfig', () => {
  it('refuses two settings of one variable, and a default that is not a value', () => {
    expect(() => defineConfig('A', { key: text({ doc: '' }), keyFile: text({ doc: '' }) })).toThrow(/A_KEY_FILE/)
    expect(() => duration({ doc: '', default: 'soon' })).toThrow(/soon/)
    expect(() => bytes({ doc: '', default: '1MiB', max: 'big' })).toThrow(/big/)
  })
})

it('describeConfig writes a reference page', () => {
  expect(describeConfig(registry).split('\n').slice(0, 5)).toEqual([
    '| Setting | Value | Default | Meaning |',
    '|---|---|---|---|',
    '| `REGISTRY_PORT` | a port number from 0 to 65535 | `5000` | Port of the /v2 API. |',
    '| `REGISTRY_BLOB_READS` | redirect or stream | `stream` | How bytes \\| travel. |',
    '| `REGISTRY_UPLOAD_EXPIRY` | a duration such as 90s, 5m or 24h | `24h` | An upload untouched for this long is swept. |',
  ])
})
