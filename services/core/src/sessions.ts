import type { Principal } from '@haven/identity'
export type Session = { id: string; principal: Principal }
export interface Sessions {
  load(id: string, options: { renew: boolean }): Promise<Session | null>
  create(user: Extract<Principal, { kind: 'user' }>): Promise<Session>
  destroy(id: string): Promise<void>
  check(): Promise<void>
}
