import { formatScope, parseScopes, type Scope } from '@haven/oci'
import type { OutboundClient, OutboundResponse } from '@haven/outbound'
import { expectStatus, failed, headerOf, objectOf } from './answers.ts'
import { parseChallenges } from './challenges.ts'
import type { Credential, Endpoint } from './registry.ts'
import type { Retries } from './retries.ts'

/** Distribution's token specification: a token without a time lives this long. */
const DEFAULT_LIFE_SECONDS = 60
const LONGEST_LIFE_SECONDS = 3600
/** Not used any more when it ends this soon. */
const MARGIN_MS = 5_000
const MOST_TOKENS = 1000
const CLIENT_ID = 'haven'

type Bearer = { readonly realm: URL; readonly service: string | undefined }
type Token = { readonly header: string; readonly expiresAt: number }

/** Knows what to put into `Authorization`: learns it from the first refusal and remembers tokens by scope. */
export class Authorizer {
  readonly #base: URL
  readonly #endpoint: Endpoint
  readonly #outbound: OutboundClient
  readonly #retries: Retries
  #offered: 'nothing' | 'basic' | Bearer = 'nothing'
  readonly #tokens = new Map<string, Promise<Token>>()
  /** Actions that the server asked for beyond ours: GitLab wants `*` for a delete. */
  readonly #moreActions = new Map<string, ReadonlySet<string>>()

  constructor(base: URL, endpoint: Endpoint, outbound: OutboundClient, retries: Retries) {
    this.#base = base
    this.#endpoint = endpoint
    this.#outbound = outbound
    this.#retries = retries
  }

  get scheme(): 'none' | 'basic' | 'bearer' {
    if (this.#offered === 'nothing') return 'none'
    return this.#offered === 'basic' ? 'basic' : 'bearer'
  }

  /** @throws problems.outboundFailed when no token is to be had. */
  async header(scopes: readonly Scope[]): Promise<string | undefined> {
    const { credential } = this.#endpoint
    if (credential?.type === 'bearer') return `Bearer ${credential.token}`
    if (this.#offered === 'nothing') return undefined
    if (this.#offered === 'basic') return credential && basic(credential)
    return (await this.#token(this.#offered, this.#wanted(scopes))).header
  }

  /** Reads a 401 of the registry. Afterwards `header` may have something better. @throws problems.outboundFailed for a realm we do not go to. */
  async learn(answer: OutboundResponse, scopes: readonly Scope[]) {
    const challenges = parseChallenges(headerOf(answer, 'www-authenticate'))
    const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.realm !== undefined)
    if (bearer === undefined) {
      if (challenges.some(({ scheme }) => scheme === 'basic')) this.#offered = 'basic'
      return
    }
    const { realm = '', service, scope } = bearer.parameters
    this.#tokens.delete(keyOf(this.#wanted(scopes)))
    this.#offered = { realm: this.#checkedRealm(realm), service }
    for (const asked of parseScopes(scope?.slice(0, 2048))) {
      // A scope of something else would be a token for it in the hands of whoever asked.
      const ours = scopes.find(({ type, name }) => type === asked.type && name === asked.name)
      const known = this.#moreActions.get(resourceOf(asked))
      if (ours === undefined || asked.actions.every((action) => ours.actions.includes(action) || known?.has(action)))
        continue
      if (this.#moreActions.size >= MOST_TOKENS) this.#moreActions.clear()
      this.#moreActions.set(resourceOf(asked), new Set([...(known ?? []), ...asked.actions]))
    }
  }

  #wanted(scopes: readonly Scope[]): readonly Scope[] {
    return scopes.map(({ type, name, actions }) => ({
      type,
      name,
      actions: [...new Set([...actions, ...(this.#moreActions.get(resourceOf({ type, name })) ?? [])])],
    }))
  }

  /**
   * Whoever can write a header of the upstream must not choose where its credential goes (CVE-2026-33540, threats.md A83): it goes to the
   * registry's own origin, to a service that the operator named, or by https to the same host or a domain above it (registry.gitlab.com →
   * gitlab.com), whose owner could answer for the registry anyway.
   */
  #checkedRealm(text: string): URL {
    const realm = URL.parse(text)
    const base = this.#base
    if (realm === null || !['http:', 'https:'].includes(realm.protocol))
      throw failed(base, 'its token service has an unreadable URL')
    if (base.protocol === 'https:' && realm.protocol !== 'https:')
      throw failed(base, 'its token service is not reached by https')
    const bound =
      realm.origin === base.origin ||
      [...(this.#endpoint.tokenOrigins ?? []), ...(WELL_KNOWN[base.hostname] ?? [])].includes(realm.origin) ||
      (realm.protocol === 'https:' &&
        (realm.hostname === base.hostname || isDomainAbove(realm.hostname, base.hostname)))
    if (!bound && this.#endpoint.credential !== undefined) {
      throw failed(
        base,
        'its token service is at another host, which may not have the credential unless the endpoint names it',
      )
    }
    return realm
  }

  async #token(from: Bearer, scopes: readonly Scope[]): Promise<Token> {
    const key = keyOf(scopes)
    const pending = this.#tokens.get(key)
    if (pending !== undefined) {
      const known = await pending
      if (known.expiresAt - MARGIN_MS > performance.now()) return known
      // Whoever woke up first has asked already.
      if (this.#tokens.get(key) !== pending) return this.#token(from, scopes)
    }
    // Callers that come meanwhile wait for the same answer.
    const asked = this.#fetch(from, scopes)
    if (this.#tokens.size >= MOST_TOKENS) this.#tokens.delete(this.#tokens.keys().next().value!)
    this.#tokens.set(key, asked)
    try {
      return await asked
    } catch (error) {
      this.#tokens.delete(key)
      throw error
    }
  }

  async #fetch({ realm, service }: Bearer, scopes: readonly Scope[]): Promise<Token> {
    const asked = performance.now()
    const { credential, ca, insecure } = this.#endpoint
    const password = credential?.type === 'basic' ? credential : undefined
    const tls = {
      ...(ca !== undefined && { ca }),
      insecure: insecure === true && realm.hostname === this.#base.hostname,
    }
    const url = new URL(realm)
    if (service !== undefined) url.searchParams.set('service', service)
    for (const scope of scopes) url.searchParams.append('scope', formatScope(scope))
    url.searchParams.set('client_id', CLIENT_ID)
    if (password) url.searchParams.set('account', password.username)
    const repeat = { repeatable: true, idempotent: true }
    const headers = { accept: 'application/json', ...(password && { authorization: basic(password) }) }
    let answer = await this.#retries.run(() => this.#outbound.request({ url, headers, ...tls }), repeat)
    if ([404, 405, 501].includes(answer.status) && password) {
      answer.body.destroy()
      const form = new URLSearchParams({
        grant_type: 'password',
        client_id: CLIENT_ID,
        ...(service !== undefined && { service }),
      })
      form.set('scope', scopes.map(formatScope).join(' '))
      form.set('username', password.username)
      form.set('password', password.password)
      const post = {
        method: 'POST',
        body: form.toString(),
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      }
      answer = await this.#retries.run(() => this.#outbound.request({ url: realm, ...post, ...tls }), repeat)
    }
    const { token, access_token: accessToken, expires_in: life } = await objectOf(expectStatus(answer, 200))
    const found = typeof token === 'string' && token !== '' ? token : accessToken
    // What is no token68 of RFC 6750 could not be sent.
    if (typeof found !== 'string' || !/^[\w.~+/-]{1,16384}=*$/.test(found))
      throw failed(realm, 'its answer holds no token')
    const seconds = typeof life === 'number' && life > 0 ? Math.min(life, LONGEST_LIFE_SECONDS) : DEFAULT_LIFE_SECONDS
    return { header: `Bearer ${found}`, expiresAt: asked + seconds * 1000 }
  }
}

// Registries whose token service is a sibling.
const WELL_KNOWN: Readonly<Record<string, readonly string[]>> = {
  'registry-1.docker.io': ['https://auth.docker.io'],
  'index.docker.io': ['https://auth.docker.io'],
}

const isDomainAbove = (above: string, host: string) => above.includes('.') && host.endsWith(`.${above}`)
const resourceOf = ({ type, name }: Pick<Scope, 'type' | 'name'>) => `${type}:${name}`
const keyOf = (scopes: readonly Scope[]) => scopes.map(formatScope).join(' ')

function basic({ username, password }: Extract<Credential, { type: 'basic' }>): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
