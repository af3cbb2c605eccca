import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { getCACertificates } from 'node:tls'
import { failure, reasonOf, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const FEW_DAYS = 21

/** The certificate that the proxy is given: its time, its names, its chain and its key. One that Haven makes itself is renewed by it. */
export async function lookAtCertificate({ config, env }: Ground): Promise<Look[]> {
  // Of a setting that is a file, both names hold the path.
  const certPath = env.PROXY_TLS_CERT || env.PROXY_TLS_CERT_FILE
  const keyPath = env.PROXY_TLS_KEY || env.PROXY_TLS_KEY_FILE
  if (config.tls !== 'files' || !certPath || !keyPath) return []
  const at = 'certificate'
  let chain: X509Certificate[]
  let key
  try {
    chain = certificatesIn(readFileSync(certPath, 'utf8'))
    key = createPrivateKey(readFileSync(keyPath))
  } catch (error) {
    const todo = 'give PROXY_TLS_CERT a chain in PEM, and PROXY_TLS_KEY its key in PEM without a password'
    return [{ at, said: 'cannot be read', findings: [failure('certificate.unreadable', reasonOf(error), todo)] }]
  }
  const [leaf] = chain
  const findings: Finding[] = [
    ...chain.flatMap(inTime),
    ...(leaf!.checkPrivateKey(key)
      ? []
      : [
          failure(
            'certificate.key',
            'PROXY_TLS_KEY is not the key of the certificate in PROXY_TLS_CERT',
            'give both of one pair; the first certificate in the file must be that of the server',
          ),
        ]),
    ...named(leaf!, config.externalUrl),
    ...linked(chain, env.CORE_CA_CERTIFICATE || env.CORE_CA_CERTIFICATE_FILE || null),
  ]
  return [{ at, said: `${names(leaf!)}, until ${leaf!.validTo}`, findings }]
}

/** @throws when there is none, or one is damaged. */
function certificatesIn(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new Error('the file holds no certificate')
  return blocks.map((block) => new X509Certificate(block))
}

const subject = (certificate: X509Certificate) => certificate.subject.replaceAll('\n', ', ') || 'without a subject'
const names = (certificate: X509Certificate) => certificate.subjectAltName ?? subject(certificate)

function inTime(certificate: X509Certificate): Finding[] {
  const days = Math.floor((Date.parse(certificate.validTo) - Date.now()) / DAY_MS)
  const which = `the certificate ${subject(certificate)}`
  const renew = 'renew it; Haven takes the new files up by itself'
  if (days < 0) return [failure('certificate.expired', `${which} has been over since ${certificate.validTo}`, renew)]
  if (Date.parse(certificate.validFrom) > Date.now()) {
    const todo = "see that this machine's clock is right, or wait"
    return [failure('certificate.early', `${which} is not valid before ${certificate.validFrom}`, todo)]
  }
  return days < FEW_DAYS ? [warning('certificate.ends-soon', `${which} is valid for ${days} more days`, renew)] : []
}

function named(leaf: X509Certificate, externalUrl: string | undefined): Finding[] {
  const host = URL.parse(externalUrl ?? '')?.hostname.replace(/^\[|\]$/g, '') ?? ''
  if (host === '') return []
  const matches = isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)
  if (matches !== undefined) return []
  const what = `the certificate is for ${names(leaf)} and not for ${host}, by which clients come (HAVEN_EXTERNAL_URL)`
  return [failure('certificate.name', what, 'get one that names this host among its subject alternative names')]
}

/** Each must be signed by the next, and the last by somebody whom this machine or CORE_CA_CERTIFICATE knows. */
function linked(chain: readonly X509Certificate[], authorityPath: string | null): Finding[] {
  const broken = chain.findIndex((one, i) => i + 1 < chain.length && !signed(one, chain[i + 1]!))
  if (broken >= 0) {
    const what = `in PROXY_TLS_CERT the certificate ${subject(chain[broken]!)} is not signed by the one after it`
    return [
      failure('certificate.chain', what, 'put the certificate of the server first, then each signer of the one before'),
    ]
  }
  const last = chain.at(-1)!
  const roots = [...getCACertificates('default'), ...getCACertificates('system')]
  try {
    const own = authorityPath === null ? [] : certificatesIn(readFileSync(authorityPath, 'utf8'))
    const isKnown = [...own, ...roots.flatMap(parsed)].some(
      (root) => root.fingerprint256 === last.fingerprint256 || signed(last, root),
    )
    if (isKnown) return []
  } catch (error) {
    const todo = 'give CORE_CA_CERTIFICATE_FILE a certificate in PEM'
    return [failure('certificate.authority', `CORE_CA_CERTIFICATE cannot be read: ${reasonOf(error)}`, todo)]
  }
  const what = `nobody whom this machine trusts signed ${subject(last)}`
  const todo =
    'add the intermediate certificates to PROXY_TLS_CERT; of an authority of your own, name its certificate in CORE_CA_CERTIFICATE_FILE and install it at the clients'
  return [warning('certificate.untrusted', what, todo)]
}

const signed = (one: X509Certificate, by: X509Certificate) => one.checkIssued(by) && one.verify(by.publicKey)

function parsed(pem: string): X509Certificate[] {
  try {
    return [new X509Certificate(pem)]
  } catch {
    return [] // a root of the system that this OpenSSL does not read signs nothing here
  }
}
