import type { ProviderInfo, StoredRegistry } from '@haven/registries'
import type { HarborSchemas } from '@haven/proto'
import { NO_TIME, time } from './time.ts'

/** What stands for a secret that is there. Who sends it back means the one that is there. */
export const MASK = '*****'

export function presentRegistry(registry: StoredRegistry): HarborSchemas['Registry'] {
  const { credentialType, accessKey, accessSecret } = registry
  return {
    id: registry.id,
    name: registry.name,
    type: registry.type,
    url: registry.url,
    ...(registry.description !== '' && { description: registry.description }),
    ...(registry.insecure && { insecure: true }),
    ...(registry.caCertificate !== '' && { ca_certificate: registry.caCertificate }),
    ...((accessKey !== '' || accessSecret !== null) && {
      credential: {
        type: credentialType || 'basic',
        ...(accessKey !== '' && { access_key: accessKey }),
        ...(accessSecret !== null && { access_secret: MASK }),
      },
    }),
    status: registry.health,
    creation_time: time(registry.createdAt),
    update_time: time(registry.updatedAt),
  }
}

/** This installation, where a policy names no other registry. */
export const presentLocalRegistry = (url: string): HarborSchemas['Registry'] => ({
  id: 0,
  name: 'Local',
  type: 'harbor',
  url,
  status: 'healthy',
  creation_time: NO_TIME,
  update_time: NO_TIME,
})

type FilterStyle = HarborSchemas['FilterStyle']
const input = (type: string): FilterStyle => ({ type, style: 'input', values: null })

/** What a policy about such a registry may say. */
export const presentRegistryInfo = ({
  type,
  copiesByChunk,
  isLocal,
}: {
  type: string
  copiesByChunk: boolean
  isLocal: boolean
}): HarborSchemas['RegistryInfo'] => ({
  type,
  supported_resource_filters: [
    input('name'),
    input('tag'),
    { type: 'resource', style: 'radio', values: ['image', 'artifact'] },
  ],
  supported_triggers: ['manual', 'scheduled', ...(isLocal ? ['event_based'] : [])],
  ...(copiesByChunk && { supported_copy_by_chunk: true }),
})

/** In the words that Harbor's portal knows. */
export const presentProviderInfo = ({ endpoints, accessKey }: ProviderInfo): HarborSchemas['RegistryProviderInfo'] => ({
  ...(endpoints && {
    endpoint_pattern: {
      endpoint_type: endpoints.fixed ? 'EndpointPatternTypeFix' : 'EndpointPatternTypeList',
      endpoints: Object.entries(endpoints.byName).map(([key, value]) => ({ key, value })),
    },
  }),
  ...(accessKey !== undefined && {
    credential_pattern: {
      access_key_type: 'AccessKeyTypeFix',
      access_key_data: accessKey,
      access_secret_type: 'AccessSecretTypeFile',
      access_secret_data: 'No Change',
    },
  }),
})
