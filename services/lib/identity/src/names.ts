import { problems } from '@haven/errors'

/** What two names must differ in to be two: compatibility forms, case and outer blanks do not count (threats.md A11). */
export const nameKey = (name: string): string => name.normalize('NFKC').trim().toLowerCase().normalize('NFKC')

// Harbor's rule (harbor-features.md D). `$` keeps robots' names apart; what cannot be seen cannot be told apart.
const forbidden = /[,"~#%$\p{C}\p{Zl}\p{Zp}]/u

/** Whether somebody may be called this. */
export const canBeUsername = (name: string): boolean =>
  name.length >= 1 && name.length <= 255 && !forbidden.test(name) && nameKey(name) !== '' && name === name.trim()

/** @throws badRequest */
export function requireUsername(name: string): string {
  if (canBeUsername(name)) return name
  const wrongLength = name.length < 1 || name.length > 255
  throw problems.badRequest({
    message: `username ${wrongLength ? 'with illegal length' : 'contains illegal characters'}`,
  })
}

/** @throws badRequest */
export function requireEmail(email: string): string {
  const wrong =
    email === ''
      ? "email can't be empty"
      : email.length > 255
        ? 'email with illegal length'
        : /^[^\s@<>"(),:;[\]\\]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+$/.test(email)
          ? null
          : 'email with illegal format'
  if (wrong) throw problems.badRequest({ message: wrong })
  return email
}

/** @throws badRequest */
export function requireRealname(realname: string): string {
  const wrong =
    realname.length < 1 || realname.length > 255
      ? 'realname with illegal length'
      : forbidden.test(realname)
        ? 'realname contains illegal characters'
        : null
  if (wrong) throw problems.badRequest({ message: wrong })
  return realname
}

/** @throws badRequest */
export function requireComment(comment: string): string {
  if (comment.length > 30) throw problems.badRequest({ message: 'user comment with illegal length' })
  return comment
}
