import type { IncomingMessage } from 'node:http'
import type { Principal } from '@haven/identity'
import type { DeleteDeps } from '@haven/projects'
export interface People {
  idsNamed(names: string[]): Promise<number[]>
  namesOf(ids: number[]): Promise<Map<number, string>>
  ownerFor(principal: Principal): Promise<number>
  memberCounts(projectId: number): Promise<Map<number, number>>
  forgetProject: DeleteDeps['forgetProject']
  isTaken(target: string, value: string): Promise<boolean>
  noteSignIn(user: Extract<Principal, { kind: 'user' }>, req: IncomingMessage): Promise<void>
  noteSignOut(user: Extract<Principal, { kind: 'user' }>, req: IncomingMessage): Promise<void>
}
