import type { Database } from '@haven/db'
import { SigningKeys } from '@haven/identity'
import { askDoor, type Answered } from '../../ask.ts'
import { sealerOf } from '../../installation.ts'
import { failure, reasonOf, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'

/** Servers in front of others often take 1 MiB; a layer is larger. */
const LARGE_BYTES = 2 * 1024 * 1024
const WAIT_MS = 4_000

/** What clients will see at the external URL: asked from here, as they ask. */
export async function lookAtClients(ground: Ground): Promise<Look[]> {
  const { config, state, isRunning, home } = ground
  const base = (config.externalUrl ?? (isRunning ? state?.address : undefined))?.replace(/\/+$/, '')
  const at = 'clients'
  if (home !== null && !isRunning) return [{ at, said: 'not looked at while it does not run', findings: [] }]
  if (base === undefined) return [{ at, said: 'not looked at: HAVEN_EXTERNAL_URL is not set', findings: [] }]
  let answer: Answered
  try {
    answer = await askDoor(`${base}/v2/`, { waitMs: WAIT_MS })
  } catch (error) {
    const todo = 'see that the proxy runs, that HAVEN_EXTERNAL_URL is right, and that this machine can reach it'
    return [{ at, said: `${base} does not answer`, findings: [failure('clients.unreachable', reasonOf(error), todo)] }]
  }
  const findings = [...trust(answer, base, config.tls === 'self-signed'), ...(await served(answer, base, ground))]
  const sent = `are sent to ${realmOf(answer)?.realm ?? 'nowhere'} for their tokens`
  return [{ at, said: answer.certificate ? `${sent}; ${shown(answer.certificate)}` : sent, findings }]
}

const shown = ({ validTo, distrusted }: NonNullable<Answered['certificate']>) =>
  `certificate until ${validTo}, ${distrusted === null ? 'trusted by this machine' : `not trusted here (${distrusted})`}`

function realmOf({ headers }: Answered): { realm: string; service: string } | null {
  const challenge = headers['www-authenticate'] ?? ''
  const realm = /realm="([^"]*)"/.exec(challenge)?.[1]
  return realm === undefined ? null : { realm, service: /service="([^"]*)"/.exec(challenge)?.[1] ?? '' }
}

function trust({ certificate }: Answered, base: string, isSelfSigned: boolean): Finding[] {
  const why = certificate?.distrusted ?? null
  if (why === null) return []
  if (why === 'CERT_HAS_EXPIRED') {
    return [failure('clients.certificate-expired', `the certificate of ${base} has expired`, 'renew it where TLS ends')]
  }
  if (why.startsWith('ERR_TLS_CERT_ALTNAME')) {
    const todo = 'use a certificate for this host where TLS ends, or correct HAVEN_EXTERNAL_URL'
    return [failure('clients.certificate-name', `the certificate that ${base} shows is for another host`, todo)]
  }
  if (isSelfSigned) return [] // so it was wanted; make up says how clients learn to trust it
  const todo = 'install the authority at every client, or use one that they know'
  return [warning('clients.certificate-untrusted', `the certificate of ${base} is not trusted here (${why})`, todo)]
}

async function served(answer: Answered, base: string, ground: Ground): Promise<Finding[]> {
  const { status, headers } = answer
  const challenge = realmOf(answer)
  if (status >= 300 && status < 400) {
    const what = `${base} sends clients on to ${headers.location ?? 'nowhere'}: what they push does not follow`
    return [failure('clients.redirected', what, 'set HAVEN_EXTERNAL_URL to the address that answers itself')]
  }
  if (status !== 401 || challenge === null) {
    const what = `${base}/v2/ answers ${status} without saying where tokens are: it is no Haven`
    return [failure('clients.not-haven', what, 'correct HAVEN_EXTERNAL_URL, or what stands in front of the proxy')]
  }
  const expected = `${base}/service/token`
  if (challenge.realm !== expected) {
    const what = `clients of ${base} are sent to ${challenge.realm} for their tokens, and not to ${expected}`
    const todo =
      'set HAVEN_EXTERNAL_URL at the registry to the address that clients use; a server in front must pass on Host and X-Forwarded-Proto'
    return [failure('clients.realm', what, todo)]
  }
  const looked = await Promise.all([tokens(challenge, base, ground), large(base)])
  return looked.flat()
}

/** Whether clients get tokens, and whether our key signed them: the address may be another installation's. */
async function tokens(
  { realm, service }: { realm: string; service: string },
  base: string,
  { db, shared }: Ground,
): Promise<Finding[]> {
  let answer: Answered
  try {
    // As a client that pulls without signing in: it gets a token, whatever that allows.
    const query = new URLSearchParams({ service, scope: 'repository:haven/doctor:pull' })
    answer = await askDoor(`${realm}?${query.toString()}`, { waitMs: WAIT_MS })
  } catch (error) {
    const todo = 'see that the token service runs and that clients can reach this address'
    return [failure('clients.tokens', `clients get no tokens: ${reasonOf(error)}`, todo)]
  }
  const keyId = answer.status === 200 ? keyIdOf(answer.body) : null
  if (keyId === null) {
    const what = `${realm}, where clients get their tokens, answers ${answer.status} without one`
    return [
      failure('clients.tokens', what, 'see that the token service runs, and that what is in front passes /service on'),
    ]
  }
  const ours = await keyIds(db, shared.HAVEN_ENCRYPTION_KEY)
  if (ours === null || ours.has(keyId)) return []
  const what = `what answers at ${base} signs tokens with another key than this database has: it is another installation`
  return [failure('clients.another-installation', what, 'correct HAVEN_EXTERNAL_URL, DATABASE_URL, or the name server')]
}

/** Of the token in an answer; null when there is none. */
function keyIdOf(body: string): string | null {
  try {
    const { token } = JSON.parse(body) as { token: string }
    const { kid } = JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString('utf8')) as { kid?: unknown }
    return typeof kid === 'string' ? kid : null
  } catch {
    return null
  }
}

async function keyIds(db: Database | null, key: string | undefined): Promise<Set<string> | null> {
  if (db === null || key === undefined) return null
  try {
    const { keys } = await new SigningKeys(db, sealerOf(key)).jwks()
    return new Set(keys.map(({ kid }) => String(kid)))
  } catch {
    return null // that the database or the key is of no use is told elsewhere
  }
}

/** Nobody signed in, so Haven says 401 of it; a server in front that takes no large bodies says 413 before. */
async function large(base: string): Promise<Finding[]> {
  const url = `${base}/v2/haven/doctor/blobs/uploads/00000000-0000-4000-8000-000000000000`
  const body = new Uint8Array(LARGE_BYTES)
  const status = await askDoor(url, { method: 'PATCH', body, waitMs: WAIT_MS }).then(
    (answer) => answer.status,
    () => null,
  )
  if (status !== 413) return []
  const what = `a body of ${LARGE_BYTES / 1024 / 1024} MiB does not come through ${base}: pushes will fail`
  return [
    failure(
      'clients.body-limit',
      what,
      'let the server in front of the proxy take bodies of any size (nginx: client_max_body_size 0)',
    ),
  ]
}
