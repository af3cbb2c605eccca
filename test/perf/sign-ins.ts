import { ADMIN_PASSWORD } from '@haven/testkit'
import { cpuSecondsOf } from './cpu.ts'
import { basic, call, expectStatus, type Answer } from './http.ts'
import { median, type Shown } from './judge.ts'
import { PASSWORD, REPOSITORY, seedAccounts, seedImage } from './seed.ts'
import { run } from './specials.ts'
import { haven, type Subject } from './subjects.ts'

/** Of programs, each of which signs in five times a minute; and people who sign in once. */
const PROGRAMS = 180
const PEOPLE = 1_000

/** P21: Basic on each request, and manifests while people and programs sign in. */
export async function signIns(say: (text: string) => void): Promise<Shown> {
  await using subject = await haven('haven')
  say('sign-ins: Basic on each request')
  const values = await basicBySession(subject, basic('admin', ADMIN_PASSWORD))
  await seedAccounts(subject, [...names('program', PROGRAMS), ...names('person', PEOPLE)])
  say('sign-ins: manifests beside those of an installation')
  const { path } = (await seedImage(subject, REPOSITORY, 'signed-in', [1024])).manifest
  for (let n = 0; n < PROGRAMS; n++) await dockerLogin(subject, `program-${n}`)
  let [people, programs] = [0, 0]
  const person = () => `person-${people++}`
  const usual = (n: number) =>
    n % 10 === 0 ? portalLogin(subject, person()) : dockerLogin(subject, `program-${programs++ % PROGRAMS}`)
  const first = () => dockerLogin(subject, person())
  values['manifests beside 1,000 sign-ins a minute by those beside none'] = await besideSignIns(subject, path, usual)
  values['cores of 1,000 sign-ins a minute'] = await coresOf(subject, usual)
  say('sign-ins: manifests beside first ones only')
  values['manifests beside 1,000 first sign-ins a minute by those beside none'] = await besideSignIns(
    subject,
    path,
    first,
  )
  values['cores of 1,000 first sign-ins a minute'] = await coresOf(subject, first)
  return { values }
}

const names = (kind: string, count: number) => Array.from({ length: count }, (_, n) => `${kind}-${n}`)

const ROUNDS = 5

/** Rates of sixteen connections by that of sixteen which share a session; the medians of rounds in turn. */
async function basicBySession(subject: Subject, authorization: string): Promise<Record<string, number>> {
  const read = '/api/v2.0/users/current'
  const token = `${subject.token!({ repositories: [REPOSITORY], actions: 'pull' }).path}&account=admin`
  const kinds = {
    session: { path: read, headers: { cookie: await portalLogin(subject, 'admin', ADMIN_PASSWORD) } },
    'API read with Basic': { path: read, headers: { authorization } },
    'token with Basic': { path: token, headers: { authorization } },
  }
  const rates = Object.fromEntries(Object.keys(kinds).map((kind) => [kind, [] as number[]]))
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [kind, { path, headers }] of Object.entries(kinds)) {
      const operation = { kind: 'read', method: 'GET', paths: [path], status: 200, bytes: -1 } as const
      const asked = { ...subject, headers: () => Promise.resolve<Record<string, string>>(headers) }
      const { operations, seconds } = await run(asked, 'none', { operation, connections: 16, seconds: 0.8 })
      if (round > 0) rates[kind]!.push(operations / seconds) // the first warms up
    }
  }
  const by = (kind: string) => median(rates[kind]!.map((rate, round) => rate / rates.session![round]!))
  return {
    'API read with Basic by one with a session': by('API read with Basic'),
    'token with Basic by an API read with a session': by('token with Basic'),
    'API reads with Basic': median(rates['API read with Basic']!),
    'tokens with Basic': median(rates['token with Basic']!),
  }
}

/** One in so many milliseconds: a thousand a minute. */
const SIGN_IN_EVERY_MS = 60

/**
 * The rate at which sixteen connections read a manifest while there are sign-ins, by that while there are none; the median of rounds in turn.
 * A working installation: programs, nine tenths of them, which ask for a token with Basic again and again as docker does; and people at the
 * portal for the first time, a hundred a minute, as 10⁵ who come once in a long working day.
 */
async function besideSignIns(subject: Subject, path: string, signIn: (n: number) => Promise<unknown>): Promise<number> {
  const operation = { kind: 'read', method: 'GET', paths: [path], status: 200, bytes: -1 } as const
  const rate = async () => {
    const scope = { repositories: [REPOSITORY], actions: 'pull' }
    const { operations, seconds } = await run(subject, scope, { operation, connections: 16, seconds: 2 })
    return operations / seconds
  }
  const ratios: number[] = []
  for (let round = 0; round <= ROUNDS; round++) {
    const alone = await rate()
    const signedIn = signInsUntil(signIn)
    const beside = await rate().finally(() => signedIn.end())
    await signedIn.ended
    if (round > 0) ratios.push(beside / alone) // the first warms up
  }
  return median(ratios)
}

/** Signs in again and again until it is told to end. */
function signInsUntil(signIn: (n: number) => Promise<unknown>): { end(): void; ended: Promise<unknown[]> } {
  const signedIn: Promise<unknown>[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setInterval(() => signedIn.push(signIn(signedIn.length)), SIGN_IN_EVERY_MS)
  const end = () => {
    clearInterval(timer)
    resolve()
  }
  return { end, ended: promise.then(() => Promise.all(signedIn)) }
}

/** CPU of the installation while there are sign-ins and nothing else, which other work on the machine does not change much. */
async function coresOf(subject: Subject, signIn: (n: number) => Promise<unknown>): Promise<number> {
  const before = cpuSecondsOf(subject.roots)
  const signedIn = signInsUntil(signIn)
  await new Promise((resolve) => setTimeout(resolve, 6_000))
  signedIn.end()
  const { length } = await signedIn.ended
  return (cpuSecondsOf(subject.roots) - before) / ((length * SIGN_IN_EVERY_MS) / 1_000)
}

const dockerLogin = (subject: Subject, name: string) => {
  const { path } = subject.token!({ repositories: [REPOSITORY], actions: 'pull' })
  const headers = { authorization: basic(name, PASSWORD) }
  return expectStatus(200, call(subject, 'GET', `${path}&account=${name}`, { headers }), 'a sign-in')
}

/** The cookies of a browser in which somebody signed in. */
async function portalLogin(subject: Subject, principal: string, password = PASSWORD): Promise<string> {
  const cookies = new Map<string, string>()
  const cookie = () => [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
  const keep = ({ headers }: Answer) => {
    for (const text of headers['set-cookie'] ?? []) {
      const [name, ...value] = text.split(';')[0]!.split('=')
      cookies.set(name!, value.join('='))
    }
  }
  const visited = await call(subject, 'GET', '/c/log_out')
  keep(visited)
  const headers = {
    cookie: cookie(),
    'content-type': 'application/x-www-form-urlencoded',
    'x-harbor-csrf-token': String(visited.headers['x-harbor-csrf-token']),
  }
  const body = Buffer.from(new URLSearchParams({ principal, password }).toString())
  keep(await expectStatus(200, call(subject, 'POST', '/c/login', { headers, body }), 'a sign-in'))
  return cookie()
}
