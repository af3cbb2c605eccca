import { problems } from '@haven/errors'
import type { Credential, Endpoint } from '@haven/registry-client'
import type { RemoteRegistry } from './remote-registry.ts'

/** What a form may offer for one type of registry, in the words of Harbor's portal. */
export type ProviderInfo = {
  /** Its addresses by name. `fixed`: there is no other. */
  readonly endpoints?: { readonly fixed: boolean; readonly byName: Readonly<Record<string, string>> }
  /** It takes this one access key, and a file as the secret. */
  readonly accessKey?: string
}

type Adapter = ProviderInfo & {
  /** Uploads may come in pieces, so that a long one can go on where it was cut. */
  readonly copiesByChunk?: boolean
  readonly hosts?: RegExp
  /** Where its OCI Distribution API is, when that is not at the address that people know. */
  readonly distributionUrl?: string
  /** How we sign in, when that is not simply key and secret. */
  credential?(accessKey: string, accessSecret: string): Credential
}

const HUB = 'https://hub.docker.com'

/**
 * The types of registry that can be spoken to by the OCI Distribution API with its standard tokens. Of Harbor's others, each needs a cloud's
 * own API to sign in or to list, which is not here.
 */
const adapters: Readonly<Record<string, Adapter>> = {
  'docker-registry': {},
  harbor: { copiesByChunk: true },
  'docker-hub': {
    endpoints: { fixed: true, byName: { 'hub.docker.com': HUB } },
    // The secret goes to Docker's registry and nowhere else, so no other address may look as if it did.
    hosts: /^(?:.+\.)?docker\.(?:com|io)$/,
    distributionUrl: 'https://registry-1.docker.io',
  },
  'azure-acr': { copiesByChunk: true },
  'github-ghcr': { endpoints: { fixed: true, byName: { 'ghcr.io': 'https://ghcr.io' } } },
  gitlab: {},
  'google-gcr': {
    endpoints: {
      fixed: false,
      byName: Object.fromEntries(['gcr.io', 'us.gcr.io', 'eu.gcr.io', 'asia.gcr.io'].map((h) => [h, `https://${h}`])),
    },
    accessKey: '_json_key',
  },
  'jfrog-artifactory': {},
  quay: { accessKey: 'json_file', credential: quayCredential },
}

/** Harbor's form of it: a file that names the account. A key and a secret will do as well. */
function quayCredential(accessKey: string, accessSecret: string): Credential {
  if (accessKey !== 'json_file') return { type: 'basic', username: accessKey, password: accessSecret }
  const file = readObject(accessSecret)
  const { account_name: username, docker_cli_password: password } = file ?? {}
  if (typeof username !== 'string' || typeof password !== 'string') {
    throw problems.badRequest({
      message: 'access_secret must be JSON with account_name and docker_cli_password for json_file',
    })
  }
  return { type: 'basic', username, password }
}

function readObject(json: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null
  } catch {
    return null
  }
}

export const registryTypes: readonly string[] = Object.keys(adapters)

/** What forms may offer for the types that say anything about that. */
export const providerInfos: Readonly<Record<string, ProviderInfo>> = Object.fromEntries(
  Object.entries(adapters).filter(([, { endpoints, accessKey }]) => endpoints ?? accessKey),
)

/** @throws badRequest for a type that is none of `registryTypes`. */
export function adapterOf(type: string): Adapter {
  const adapter = Object.hasOwn(adapters, type) ? adapters[type] : undefined
  if (adapter) return adapter
  throw problems.badRequest({
    message: `registry type ${JSON.stringify(type)} is not supported, only ${registryTypes.join(', ')}`,
  })
}

/**
 * Where and how to speak to a registry.
 * @throws badRequest for a type, an address of its or a secret that cannot be used.
 */
export function endpointOf({ type, url, insecure, caCertificate, credential }: RemoteRegistry): Endpoint {
  const adapter = adapterOf(type)
  if (adapter.hosts && !adapter.hosts.test(new URL(url).hostname)) {
    throw problems.badRequest({ message: `${type} is at ${Object.values(adapter.endpoints?.byName ?? {})[0]}` })
  }
  const { type: kind, accessKey, accessSecret } = credential
  return {
    url: adapter.distributionUrl ?? url,
    insecure,
    ...(caCertificate !== '' && { ca: caCertificate }),
    ...(accessSecret !== '' && { credential: credentialOf() }),
  }

  function credentialOf(): Credential {
    if (kind === 'oauth') return { type: 'bearer', token: accessSecret }
    if (adapter.credential) return adapter.credential(accessKey, accessSecret)
    return { type: 'basic', username: accessKey, password: accessSecret }
  }
}
