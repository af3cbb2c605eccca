export { adapterOf, providerInfos, registryTypes, type ProviderInfo } from './adapters.ts'
export {
  createRegistry,
  deleteRegistry,
  updateRegistry,
  type NewRegistry,
  type RegistriesDeps,
  type RegistryChange,
} from './change-registries.ts'
export { checkRegistries } from './check-registry.ts'
export { pingRegistry, pingStoredRegistry } from './ping-registry.ts'
export { findRegistry, listRegistries, type StoredRegistry } from './stored-registries.ts'
