import { problems } from '@haven/errors'

const maxLength = 512

/**
 * A distinguished name in the one form in which two can be compared (RFC 4514): no blanks around its parts, lower case, each
 * special character escaped the same way. Directories compare nearly everything without case; Harbor does so with all of it.
 * @throws badRequest for what is no distinguished name, or is longer than 512 characters.
 */
export function canonicalDn(text: string): string {
  const canonical = text.length <= maxLength ? read(text.normalize('NFC')) : null
  if (canonical === null || canonical === '')
    throw problems.badRequest({ message: `invalid DN: ${text.slice(0, 100)}` })
  return canonical
}

/** Whether `canonicalDn` takes it. */
export const isDn = (text: string): boolean => text.length <= maxLength && Boolean(read(text.normalize('NFC')))

function read(text: string): string | null {
  const names: string[] = []
  for (const name of split(text, ',;')) {
    const pairs: string[] = []
    for (const pair of split(name, '+')) {
      const equals = pair.indexOf('=')
      const type = pair.slice(0, Math.max(equals, 0)).trim().toLowerCase()
      const value = unescape(pair.slice(equals + 1))
      if (!/^(?:[a-z][a-z0-9-]*|\d+(?:\.\d+)*)$/.test(type) || value === null || value === '') return null
      pairs.push(`${type}=${escapeDnValue(value.toLowerCase())}`)
    }
    names.push(pairs.sort().join('+'))
  }
  return names.join(',')
}

/** Between separators that are not escaped. */
function split(text: string, separators: string): string[] {
  const parts = ['']
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at)
    if (char === '\\') parts[parts.length - 1] += char + text.charAt(++at)
    else if (separators.includes(char)) parts.push('')
    else parts[parts.length - 1] += char
  }
  return parts
}

/** Null for an escape that is none, or a character that has to be escaped. Blanks at the ends count only where they are escaped. */
function unescape(raw: string): string | null {
  const bytes: Buffer[] = []
  let significant = 0
  const text = raw.trimStart()
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at)
    if (char !== '\\') {
      if ('"<>\0'.includes(char)) return null
      bytes.push(Buffer.from(char))
      if (char !== ' ') significant = bytes.length
      continue
    }
    const hex = /^[0-9a-fA-F]{2}/.exec(text.slice(at + 1))?.[0]
    const escaped = text.charAt(at + 1)
    if (hex === undefined && !' "#+,;<=>\\'.includes(escaped || '?')) return null
    bytes.push(hex === undefined ? Buffer.from(escaped) : Buffer.from(hex, 'hex'))
    significant = bytes.length
    at += hex === undefined ? 1 : 2
  }
  return Buffer.concat(bytes.slice(0, significant)).toString('utf8')
}

/** A value as it stands in a distinguished name, whatever is in it (RFC 4514, §2.4; threats.md A65). */
export const escapeDnValue = (value: string): string =>
  value
    .replaceAll(/[\\"+,;<>=]/g, String.raw`\$&`)
    .replaceAll('\0', String.raw`\00`)
    .replace(/^[ #]/, String.raw`\$&`)
    .replace(/ $/, String.raw`\ `)
