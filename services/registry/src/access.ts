import type { IncomingMessage } from 'node:http'
import { grant, type Grant, type PullGrant, type Right } from '@haven/artifacts'
import { Problem, problems } from '@haven/errors'
import {
  decide,
  tokenAllows,
  tokenService,
  type Authorities,
  type Authority,
  type Principal,
  type TokenVerifier,
  type VerifiedToken,
} from '@haven/identity'
import { formatChallenge, splitProject, type RepositoryName, type Scope } from '@haven/oci'
import type { ProjectDirectory, ProjectFacts } from '@haven/projects'
import { bearerToken, contextOf, type RequestContext } from '@haven/runtime'

/** Proves a name and password; throws `unauthorized` or `tooManyRequests`. */
export type PasswordCheck = (given: {
  name: string
  password: string
  address: string
  agent?: string | undefined
}) => Promise<Principal>

export type AccessDeps = {
  projects: Pick<ProjectDirectory, 'byName' | 'byId' | 'remembered'>
  authorities: Pick<Authorities, 'of' | 'remembered'>
  tokens: Pick<TokenVerifier, 'verify' | 'remembered'>
  signIn: PasswordCheck
  /** Where clients reach this installation; null: at the host they asked (harbor-api.md §6.4). */
  externalUrl: string | null
}

/** Who asks. `token` is null for a password, which may do whatever its owner may. */
type Caller = { authority: Authority; token: VerifiedToken | null }

/** Which request it is, and from where. */
type Origin = Pick<RequestContext, 'requestId' | 'clientAddress'>
/** Grants a right that somebody was found to have; null for any other. */
type Recalled = <R extends Right>(right: R, origin: Origin) => Grant<R> | null

// On the request: an entry in a WeakMap for each of them is work for the collector.
const CALLER = Symbol('caller')
type Identified = IncomingMessage & { [CALLER]?: Promise<Caller | null> }

/** What a challenge asks the client to get a token for: pushing needs reading too, as every client asks for both. */
const challengeActions: Record<Right, readonly string[]> = {
  pull: ['pull'],
  push: ['pull', 'push'],
  delete: ['delete'],
}

/**
 * Decides who may do what on `/v2`. A token proves who asks and what it was made for; what its owner may do is read live
 * (threats.md R10), so a grant needs both. Whoever may not read a repository cannot tell whether it exists: both are 401.
 */
export class Access {
  readonly #deps: AccessDeps

  constructor(deps: AccessDeps) {
    this.#deps = deps
  }

  /**
   * The proof that the caller may do this in the repository. `also`: what else a token should have been made for; one that does not
   * name it is sent back once, and what it names without a right is for the caller to ask.
   * @throws unauthorized with a challenge; nameInvalid; nameUnknown only for those who may see every project.
   */
  async require<R extends Right>(
    req: IncomingMessage,
    right: R,
    name: RepositoryName,
    also: readonly Scope[] = [],
  ): Promise<Grant<R>> {
    const parts = splitProject(name)
    if (!parts) throw problems.nameInvalid({ name, reason: 'a repository is <project>/<path>' })
    const scopes = [{ type: 'repository', name, actions: challengeActions[right] }, ...also]
    const caller = await this.#caller(req, scopes)
    if (!caller) throw this.#refuse(req, { repository: name, action: right }, scopes)

    const project = await this.#deps.projects.byName(parts.project)
    if (project && this.#mayUse(caller, right, project, name, parts.path) && also.every((one) => names(caller, one))) {
      return this.#grant(contextOf(req), right, caller, project, parts.path)
    }
    if (!project && caller.authority.systemAdmin) throw problems.projectNotFound({ project: parts.project })
    throw this.#refuse(req, { repository: name, action: right }, scopes, 'insufficient_scope')
  }

  /**
   * As `require`, when all it takes is in memory. Null when something has to be read or checked, or the answer is no: `require` says which. Most
   * requests of a pull end here, and a promise for each step costs more than the steps.
   */
  known<R extends Right>(req: IncomingMessage, right: R, name: RepositoryName): Grant<R> | null {
    const token = bearerToken(req.headers.authorization)
    return (token === null ? null : this.recall(token, name)?.(right, contextOf(req))) ?? null
  }

  /** What memory says of whoever shows this token, in this repository. Null when something has to be read or checked. */
  recall(text: string, name: RepositoryName): Recalled | null {
    const { tokens, authorities, projects } = this.#deps
    const token = tokens.remembered(text)
    const authority = token && authorities.remembered(token.principal)
    const parts = authority && splitProject(name)
    const project = parts && projects.remembered(parts.project)
    if (!project) return null
    const caller = { token, authority }
    return (right, origin) =>
      this.#mayUse(caller, right, project, name, parts.path)
        ? this.#grant(origin, right, caller, project, parts.path)
        : null
  }

  /** As `require`, for what the caller did not ask for by name: null where it may not. */
  async allows<R extends Right>(req: IncomingMessage, right: R, name: RepositoryName): Promise<Grant<R> | null> {
    const token = bearerToken(req.headers.authorization)
    const recalled = token === null ? null : this.recall(token, name)
    if (recalled) return recalled(right, contextOf(req))
    const parts = splitProject(name)
    const caller = parts && (await this.#caller(req, []))
    const project = caller && (await this.#deps.projects.byName(parts.project))
    if (!project || !this.#mayUse(caller, right, project, name, parts.path)) return null
    return this.#grant(contextOf(req), right, caller, project, parts.path)
  }

  /** As `allows`, by what the caller's owner may pull: for a token that was made for mounting from anywhere. */
  async allowsMount(req: IncomingMessage, name: RepositoryName): Promise<PullGrant | null> {
    const parts = splitProject(name)
    const caller = parts && (await this.#caller(req, []))
    const project = caller && (await this.#deps.projects.byName(parts.project))
    if (!project || (caller.token && !holds(caller.token, mountScope, 'pull'))) return null
    const whole = { ...caller, token: null }
    return this.#mayUse(whole, 'pull', project, name, parts.path)
      ? this.#grant(contextOf(req), 'pull', caller, project, parts.path)
      : null
  }

  /** @throws unauthorized with a challenge unless somebody is signed in. */
  async requireSignedIn(req: IncomingMessage): Promise<void> {
    const caller = await this.#caller(req, [])
    if (!caller || caller.authority.principal.kind === 'anonymous' || !caller.authority.active) {
      throw this.#refuse(req, null, [])
    }
  }

  /** Those of these projects whose repositories the caller may list, by token or by right. */
  async listable(req: IncomingMessage, projectIds: readonly number[]): Promise<ProjectFacts[]> {
    const scopes = [catalogScope]
    const caller = await this.#caller(req, scopes)
    if (!caller || caller.authority.principal.kind === 'anonymous') throw this.#refuse(req, null, scopes)
    if (caller.token && !holds(caller.token, catalogScope, '*')) {
      throw this.#refuse(req, null, scopes, 'insufficient_scope')
    }
    const projects = await Promise.all(projectIds.map((id) => this.#deps.projects.byId(id)))
    return projects.filter(
      (project): project is ProjectFacts =>
        project !== null &&
        decide(caller.authority, { resource: 'repository', action: 'list', on: { project } }).allowed,
    )
  }

  #mayUse({ authority, token }: Caller, right: Right, project: ProjectFacts, name: string, path: string): boolean {
    if (token && !tokenAllows(token, name, right, project)) return false
    return decide(authority, { resource: 'repository', action: right, on: { project, repository: path } }).allowed
  }

  #grant<R extends Right>(
    { requestId, clientAddress }: Origin,
    right: R,
    { authority }: Caller,
    project: ProjectFacts,
    repository: string,
  ) {
    const { principal } = authority
    if (principal.kind === 'group') throw new Error('a group calls nobody: its members do')
    return grant(right, { project, repository, principal, requestId, address: clientAddress, door: 'registry' })
  }

  /** Read once a request. Null without credentials. */
  #caller(req: IncomingMessage, scopes: readonly Scope[]): Promise<Caller | null> {
    return ((req as Identified)[CALLER] ??= this.#identify(req, scopes))
  }

  async #identify(req: IncomingMessage, scopes: readonly Scope[]): Promise<Caller | null> {
    const header = req.headers.authorization
    if (header === undefined) return null
    const [, named, credentials = ''] = /^(\S+) +(\S+) *$/.exec(header) ?? []
    const scheme = named?.toLowerCase()
    try {
      const { authorities, tokens } = this.#deps
      if (scheme === 'bearer') {
        const token = await tokens.verify(credentials)
        return { token, authority: await authorities.of(token.principal) }
      }
      if (scheme === 'basic') {
        return { token: null, authority: await authorities.of(await this.#signIn(req, credentials)) }
      }
      throw problems.unauthorized({ message: 'this kind of credentials is not understood' })
    } catch (error) {
      // Whoever showed a credential that is none is told where to get one.
      if (!problems.unauthorized.is(error)) throw error
      const challenge = this.#challenge(req, scopes, scheme === 'bearer' ? 'invalid_token' : undefined)
      throw new Problem(error.kind, [error.entries[0]!], {
        headers: { ...error.headers, 'WWW-Authenticate': challenge },
        cause: error,
      })
    }
  }

  #signIn(req: IncomingMessage, credentials: string): Promise<Principal> {
    const text = Buffer.from(credentials, 'base64').toString('utf8')
    const colon = text.indexOf(':')
    if (colon === -1) throw problems.unauthorized({ message: 'malformed credentials' })
    return this.#deps.signIn({
      name: text.slice(0, colon),
      password: text.slice(colon + 1),
      address: contextOf(req).clientAddress,
      agent: req.headers['user-agent'],
    })
  }

  #refuse(
    req: IncomingMessage,
    what: { repository: string; action: string } | null,
    scopes: readonly Scope[],
    error?: 'insufficient_scope',
  ): Problem {
    const headers = { 'WWW-Authenticate': this.#challenge(req, scopes, error) }
    return what ? problems.repositoryUnauthorized(what, { headers }) : problems.unauthorized({}, { headers })
  }

  #challenge(req: IncomingMessage, scopes: readonly Scope[], error?: 'insufficient_scope' | 'invalid_token'): string {
    const { scheme, host } = contextOf(req)
    const base = this.#deps.externalUrl ?? `${scheme}://${host}`
    return formatChallenge({
      realm: `${base.replace(/\/+$/, '')}/service/token`,
      service: tokenService,
      scopes,
      ...(error && { error }),
    })
  }
}

const catalogScope: Scope = { type: 'registry', name: 'catalog', actions: ['*'] }
/** Ours: a mount that names no source looks for one wherever the token's owner may pull, so a token has to be made for that. */
export const mountScope: Scope = { type: 'registry', name: 'mount', actions: ['pull'] }

const holds = ({ access }: VerifiedToken, scope: Scope, action: string) =>
  access.some(({ type, name, actions }) => type === scope.type && name === scope.name && actions.includes(action))

/** Whether the token was asked for with this scope, whatever came of it. A password needs none. */
const names = ({ token }: Caller, scope: Scope) =>
  token === null || token.access.some(({ type, name }) => type === scope.type && name === scope.name)
