import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { parse } from 'yaml'
import { must } from './tools.ts'

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const contract = file('../../proto/openapi/harbor-v2.0.yaml')
const lack = lacking('openapi-generator', 'openapi-python')
const suite = lack ? describe.skip : describe

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

  it('creates, lists, changes and deletes every object, and finds each answer valid against its schema', async () => {
    const called = JSON.parse(
      await must(
        findTool('openapi-python')!,
        [file('generated/scenario.py'), join(folder, 'contract.json'), haven.url, ADMIN_PASSWORD],
        { env: { PYTHONPATH: folder, PYTHONDONTWRITEBYTECODE: '1' } },
      ),
    ) as Record<string, number[]>
    // What was missing is an error of the scenario's.
    expect(called).toMatchObject({ createUser: [201, 409], getConfigurations: [200], DeleteRobot: [200] })
  }, 120_000)
})
