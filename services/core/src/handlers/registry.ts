import { problems } from '@haven/errors'
import { projectsThrough } from '@haven/projects'
import {
  adapterOf,
  createRegistry,
  deleteRegistry,
  findRegistry,
  listRegistries,
  pingRegistry,
  pingStoredRegistry,
  providerInfos,
  registryTypes,
  updateRegistry,
} from '@haven/registries'
import type { BodyOf } from '@haven/proto'
import type { Handlers } from '../handler.ts'
import { created, ok } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import {
  MASK,
  presentLocalRegistry,
  presentProviderInfo,
  presentRegistry,
  presentRegistryInfo,
} from '../present/registry.ts'

/** The id of this installation, which is no endpoint and has no credential. */
const LOCAL = 0

export const registryHandlers: Handlers = {
  async listRegistries({ query, at }, deps) {
    const { total, registries } = await listRegistries(deps, {
      ...(query.name !== undefined && { name: query.name }),
      conditions: parseQ(query.q),
      sort: parseSort(query.sort),
      page: pageOf(query),
    })
    return listAnswer(at, query, total, registries.map(presentRegistry))
  },

  async createRegistry({ body, caller, at }, deps) {
    const id = await createRegistry(deps, caller.source, {
      name: body.name ?? '',
      description: body.description ?? '',
      type: body.type ?? '',
      url: body.url ?? '',
      insecure: body.insecure ?? false,
      caCertificate: body.ca_certificate ?? '',
      credential: {
        type: body.credential?.type ?? '',
        accessKey: body.credential?.access_key ?? '',
        accessSecret: body.credential?.access_secret ?? '',
      },
    })
    return created(`${at.path.replace(/\/$/, '')}/${id}`)
  },

  async getRegistry({ path, req }, deps) {
    if (path.id === LOCAL) {
      return ok(presentLocalRegistry(deps.facts.externalUrl ?? `http://${req.headers.host ?? 'localhost'}`))
    }
    return ok(presentRegistry(await findRegistry(deps, path.id)))
  },

  async updateRegistry({ path, body, caller }, deps) {
    const { type: credentialType, ...credential } = credentialOf(body)
    await updateRegistry(deps, caller.source, path.id, {
      ...given({ name: body.name, description: body.description, url: body.url, insecure: body.insecure }),
      ...given({ caCertificate: body.ca_certificate }),
      ...(credentialType !== undefined && { credentialType }),
      ...credential,
    })
    return ok()
  },

  async deleteRegistry({ path, caller }, deps) {
    await deleteRegistry(deps, caller.source, path.id, async (tx) =>
      (await projectsThrough(tx, path.id)).map((name) => `project ${name}`),
    )
    return ok()
  },

  async pingRegistry({ body }, deps) {
    if (body.id === LOCAL) return ok()
    if (typeof body.id === 'number') {
      await pingStoredRegistry(deps, body.id, credentialOf(body))
      return ok()
    }
    if (!body.type || !body.url) throw problems.badRequest({ message: 'type and url, or the id, must be given' })
    await pingRegistry(deps, {
      type: body.type,
      url: body.url,
      insecure: body.insecure ?? false,
      caCertificate: body.ca_certificate ?? '',
      credential: { type: '', accessKey: '', accessSecret: '', ...credentialOf(body) },
    })
    return ok()
  },

  async getRegistryInfo({ path }, deps) {
    const isLocal = path.id === LOCAL
    const type = isLocal ? 'harbor' : (await findRegistry(deps, path.id)).type
    const copiesByChunk = adapterOf(type).copiesByChunk === true
    return ok(presentRegistryInfo({ type, copiesByChunk, isLocal }))
  },

  listRegistryProviderTypes: () => ok(registryTypes),

  listRegistryProviderInfos: () =>
    ok(Object.fromEntries(Object.entries(providerInfos).map(([type, info]) => [type, presentProviderInfo(info)]))),
}

/** What a body says about the credential. Null is as good as absent, and the mask means the secret that is there. */
const credentialOf = ({ credential_type: type, access_key: accessKey, access_secret: secret }: CredentialBody) =>
  given({ type, accessKey, accessSecret: secret === MASK ? null : secret })
type CredentialBody = Pick<BodyOf<'pingRegistry'>, 'credential_type' | 'access_key' | 'access_secret'>

type Given<T> = { [K in keyof T]?: NonNullable<T[K]> }

/** The values that are there. */
const given = <T extends object>(values: T): Given<T> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== undefined)) as Given<T>
