import type { OidcMeta, UserFacts } from '@haven/identity'
import type { HarborSchemas } from '@haven/proto'
import { time } from './time.ts'

export const presentUser = (user: UserFacts): HarborSchemas['UserResp'] => ({
  user_id: user.id,
  username: user.username,
  ...(user.email && { email: user.email }),
  ...(user.realname && { realname: user.realname }),
  ...(user.comment && { comment: user.comment }),
  sysadmin_flag: user.systemAdmin,
  // The flag above is the account's own; this one would come from a directory's group.
  admin_role_in_auth: false,
  creation_time: time(user.createdAt),
  update_time: time(user.updatedAt),
})

/** All that any signed-in user may learn of another. */
export const presentUserBriefly = (user: UserFacts): HarborSchemas['UserSearchRespItem'] => ({
  user_id: user.id,
  username: user.username,
})

/** Harbor joins subject and issuer to one text; it is shown and never compared. */
export const presentOidcMeta = (
  meta: OidcMeta,
  userId: number,
  { withSecret }: { withSecret: boolean },
): HarborSchemas['OIDCUserInfo'] => ({
  id: meta.id,
  user_id: userId,
  subiss: `${meta.subject}${meta.issuer}`,
  ...(withSecret && { secret: meta.secret }),
  creation_time: time(meta.createdAt),
  update_time: time(meta.updatedAt),
})
