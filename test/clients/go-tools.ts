import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { findTool } from '@haven/testkit/tools'
import type { Site } from './site.ts'
import { must, run, type Outcome, type RunOptions } from './tools.ts'

export type GoTool = {
  /** Its standard output. @throws when it fails */
  (...args: string[]): Promise<string>
  /** With input, folder or more environment. @throws when it fails */
  with(options: RunOptions, ...args: string[]): Promise<string>
  /** Ends with any code. */
  try(...args: string[]): Promise<Outcome>
}

const logins: Record<string, (host: string) => string[]> = {
  crane: (host) => ['auth', 'login', host, '-u', 'admin', '-p', ADMIN_PASSWORD],
  regctl: (host) => ['registry', 'login', host, '-u', 'admin', '--pass-stdin', '--skip-check'],
  oras: (host) => ['login', host, '--plain-http', '-u', 'admin', '--password-stdin'],
  helm: (host) => ['registry', 'login', host, '--plain-http', '-u', 'admin', '--password-stdin'],
  helm3: (host) => ['registry', 'login', host, '--plain-http', '-u', 'admin', '--password-stdin'],
  cosign: (host) => ['login', host, '-u', 'admin', '-p', ADMIN_PASSWORD],
}

/** A client that keeps all its settings below the site's folder, signed in as the administrator where it has a command for that. */
export async function goTool(site: Site, name: string): Promise<GoTool> {
  const home = join(site.folder, name)
  mkdirSync(home)
  const env: Record<string, string> = {
    HOME: home,
    DOCKER_CONFIG: home,
    REGCTL_CONFIG: join(home, 'regctl.json'),
    HELM_CONFIG_HOME: home,
    HELM_CACHE_HOME: home,
    HELM_DATA_HOME: home,
    HELM_REGISTRY_CONFIG: join(home, 'registry.json'),
    COSIGN_PASSWORD: 'a-key-of-tests',
    SYFT_CHECK_FOR_APP_UPDATE: 'false',
    SYFT_REGISTRY_INSECURE_USE_HTTP: 'true',
    SYFT_REGISTRY_AUTH_AUTHORITY: site.host,
    SYFT_REGISTRY_AUTH_USERNAME: 'admin',
    SYFT_REGISTRY_AUTH_PASSWORD: ADMIN_PASSWORD,
    TRIVY_USERNAME: 'admin',
    TRIVY_PASSWORD: ADMIN_PASSWORD,
  }
  const file = findTool(name)!
  const inside = (options: RunOptions) => ({ cwd: home, ...options, env: { ...env, ...options.env } })
  const tool = Object.assign((...args: string[]) => must(file, args, inside({})), {
    with: (options: RunOptions, ...args: string[]) => must(file, args, inside(options)),
    try: (...args: string[]) => run(file, args, inside({})),
  })
  if (name === 'regctl') await tool('registry', 'set', '--tls', 'disabled', '--skip-check', site.host)
  const login = logins[name]
  if (login) await tool.with({ input: ADMIN_PASSWORD }, ...login(site.host))
  return tool
}
