import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { startOidcProvider } from '@haven/testkit/oidc-provider'
import { startSlapd } from '@haven/testkit/slapd'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { parse } from 'yaml'
import { must } from './tools.ts'

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const contract = file('../../proto/openapi/harbor-v2.0.yaml')
const lack = lacking('openapi-generator', 'openapi-python')
const suite = lack ? describe.skip : describe
const noDirectory = lacking('slapd')
const withDirectory = noDirectory ? it.skip : it

suite(titled('a Python client that openapi-generator makes of the contract', lack), () => {
  let haven: HavenInstallation
  let folder: string

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-generated-'))
    const generator = findTool('openapi-generator')!
    const parts = 'apiTests=false,modelTests=false,apiDocs=false,modelDocs=false'
    const made = ['generate', '-g', 'python', '-i', contract, '-o', folder, '--package-name', 'harbor_client']
    await Promise.all([
      must(generator, [...made, '--global-property', parts]),
      startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.1' } }).then((started) => (haven = started)),
    ])
    writeFileSync(join(folder, 'contract.json'), JSON.stringify(parse(readFileSync(contract, 'utf8'))))
  }, 240_000)
  afterAll(async () => {
    await haven?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  }, 60_000)

  /** What the script says that it called, with the statuses that came back. */
  const run = async (script: string, { url }: HavenInstallation, ...more: string[]) =>
    JSON.parse(
      await must(
        findTool('openapi-python')!,
        [file(`generated/${script}`), join(folder, 'contract.json'), url, ADMIN_PASSWORD, ...more],
        { env: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1' } },
      ),
    ) as Record<string, number[]>

  withDirectory(
    titled('finds and takes over people of a directory that is there, and a provider that answers', noDirectory),
    async () => {
      // Who signs in how is changed only while there is no other user.
      await using site = await startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.0/8' } })
      await using slapd = await startSlapd()
      await using provider = await startOidcProvider({
        callback: `${site.url}/c/oidc/callback`,
        signIn: `${site.url}/account/sign-in`,
      })
      const people = `ou=people,${slapd.baseDn}`
      const groups = `ou=groups,${slapd.baseDn}`
      await slapd.apply(
        `dn: uid=ann,${people}\nobjectClass: inetOrgPerson\nuid: ann\ncn: ann\nsn: ann\nmail: ann@example.com\n` +
          `userPassword: ann-secret\n\ndn: cn=builders,${groups}\nobjectClass: groupOfNames\ncn: builders\n` +
          `member: uid=ann,${people}\n`,
      )
      const called = await run(
        'providers.py',
        site,
        JSON.stringify({ directory: slapd.settings, issuer: provider.issuer }),
      )
      expect(called).toMatchObject({
        pingLdap: [200],
        searchLdapUser: [200],
        searchLdapGroup: [200],
        importLdapUser: [200],
        pingOIDC: [200],
      })
    },
    120_000,
  )

  it('creates, lists, changes and deletes every object, and finds each answer valid against its schema', async () => {
    const called = await run('scenario.py', haven)
    // What was missing is an error of the scenario's.
    expect(called).toMatchObject({ createUser: [201, 409], getConfigurations: [200], DeleteRobot: [200] })
  }, 120_000)
})
