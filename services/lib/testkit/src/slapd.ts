import { spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '@haven/embedded'
import { findTool } from './tools.ts'

/** A real OpenLDAP server on a folder of its own, with the overlay that keeps `memberOf`. */
export interface Slapd extends AsyncDisposable {
  readonly host: string
  readonly port: number
  readonly securePort: number
  readonly baseDn: string
  readonly searchDn: string
  readonly password: string
  /** PEM of the certificate that it shows: for `localhost`, signed by itself. */
  readonly certificate: string
  readonly pid: number
  /** What a Haven that asks this server for people and groups is set to. */
  readonly settings: Readonly<Record<string, string>>
  /** Applies LDIF: entries to add, or changes with a `changetype`. */
  apply(ldif: string): Promise<void>
}

const baseDn = 'dc=example,dc=com'
const searchDn = `cn=manager,${baseDn}`
const password = 'manager-secret'

/** Starts Debian's slapd with people and groups below `dc=example,dc=com`. */
export async function startSlapd(): Promise<Slapd> {
  const binary = findTool('slapd')
  if (binary === null) throw new Error('slapd is not installed')
  const folder = await mkdtemp(join(tmpdir(), 'haven-ldap-'))
  const [port, securePort] = [await freePort(), await freePort()]
  await mkdir(join(folder, 'data'))
  const certificate = await selfSigned(folder)
  await writeFile(join(folder, 'slapd.conf'), configuration(folder))
  await writeFile(join(folder, 'root.ldif'), root)
  await run(binary, ['-T', 'add', '-f', join(folder, 'slapd.conf'), '-l', join(folder, 'root.ldif')])
  const urls = `ldap://127.0.0.1:${port}/ ldaps://127.0.0.1:${securePort}/`
  const child = spawn(binary, ['-d', '0', '-f', join(folder, 'slapd.conf'), '-h', urls], { stdio: 'ignore' })
  const exited = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`slapd ended with ${code}`)))
  })
  exited.catch(() => {}) // its end is awaited below, at the start and at the stop
  const stop = async () => {
    child.kill('SIGKILL')
    await exited.catch(() => {})
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await Promise.race([listening(port), exited])
  } catch (error) {
    await stop()
    throw error
  }
  const apply = (ldif: string) =>
    run('ldapmodify', ['-a', '-x', '-H', `ldap://127.0.0.1:${port}`, '-D', searchDn, '-w', password], ldif)
  return {
    host: '127.0.0.1',
    port,
    securePort,
    baseDn,
    searchDn,
    password,
    certificate,
    pid: child.pid as number,
    settings: {
      ldap_url: `ldap://127.0.0.1:${port}`,
      ldap_search_dn: searchDn,
      ldap_search_password: password,
      ldap_base_dn: `ou=people,${baseDn}`,
      ldap_uid: 'uid',
      ldap_group_base_dn: `ou=groups,${baseDn}`,
      ldap_group_search_filter: '(objectClass=groupOfNames)',
      ldap_group_attribute_name: 'cn',
    },
    apply,
    [Symbol.asyncDispose]: stop,
  }
}

const configuration = (folder: string) => `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile ${folder}/pid
argsfile ${folder}/args
TLSCertificateFile ${folder}/certificate.pem
TLSCertificateKeyFile ${folder}/key.pem
database mdb
maxsize 16777216
suffix "${baseDn}"
rootdn "${searchDn}"
rootpw ${password}
directory ${folder}/data
overlay memberof
memberof-group-oc groupOfNames
`

const root = `dn: ${baseDn}
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: ou=people,${baseDn}
objectClass: organizationalUnit
ou: people

dn: ou=groups,${baseDn}
objectClass: organizationalUnit
ou: groups
`

async function selfSigned(folder: string): Promise<string> {
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
  await run('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate],
  ])
  await chmod(key, 0o600)
  return readFile(certificate, 'utf8')
}

async function run(command: string, args: string[], input = ''): Promise<void> {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  let complaint = ''
  child.stdout.resume()
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  child.stdin.end(input)
  const code = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${complaint}`)
}

async function listening(port: number): Promise<void> {
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
        .once('connect', () => resolve(true))
        .once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
    if (open) return
    await sleep(20)
  }
}
