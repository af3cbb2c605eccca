import 'reflect-metadata'
import { randomBytes, randomUUID, webcrypto, X509Certificate } from 'node:crypto'
import { link, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { isIP } from 'node:net'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import type { Certificate, CertificateFiles } from './certificate.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const LIFETIME_DAYS = 825
const RENEW_DAYS = 30

/**
 * The self-signed pair of this installation, kept in a folder; made when there is none, when it lacks a name, or when it ends within 30
 * days. Certificate
 * and key are one file, so that processes which start at once cannot mix theirs; `tls.crt` is a copy for people to trust.
 */
export async function selfSigned(folder: string, names: readonly string[] = []): Promise<CertificateFiles> {
  const path = join(folder, 'tls.pem')
  const files = { certPath: path, keyPath: path }
  const existing = await readIfThere(path)
  if (existing !== null && daysLeft(existing) > RENEW_DAYS && covers(existing, names)) return files

  const { cert, key } = await makeSelfSigned([...new Set([...names, 'localhost', hostname(), '127.0.0.1', '::1'])])
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const fresh = `${path}.${randomUUID()}`
  await writeDurably(fresh, cert + key)
  try {
    if (existing === null) await link(fresh, path)
    else await rename(fresh, path)
  } catch (error) {
    // Another process was first: its pair is the installation's.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  await rm(fresh, { force: true })
  const kept = await readFile(path, 'utf8')
  await writeFile(join(folder, 'tls.crt'), kept.slice(0, kept.indexOf('-----BEGIN PRIVATE KEY-----')))
  return files
}

const daysLeft = (pem: string) => (Date.parse(new X509Certificate(pem).validTo) - Date.now()) / DAY_MS

function covers(pem: string, names: readonly string[]): boolean {
  const certificate = new X509Certificate(pem)
  return names.every((name) => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined)
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

async function makeSelfSigned(names: readonly string[]): Promise<Certificate> {
  x509.cryptoProvider.set(webcrypto)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    // Positive and random: browsers refuse a second certificate of the same issuer and number.
    serialNumber: `01${randomBytes(15).toString('hex')}`,
    name: 'CN=Haven self-signed',
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + LIFETIME_DAYS * DAY_MS),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyCertSign, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) ? ('ip' as const) : ('dns' as const), value })),
      ),
    ],
  })
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey))
  const lines = pkcs8.toString('base64').match(/.{1,64}/g)!
  return {
    cert: `${certificate.toString('pem')}\n`,
    key: `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`,
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}
