/** The oldest versions that Haven runs on, as README and package.json say. */
export const oldest = { node: '24.15', postgres: '15', redis: '6.2' } as const

/** Whether a version, such as `15.4 (Debian 15.4-1)`, comes before another. One that cannot be read does not. */
export function isOlder(version: string, than: string): boolean {
  const [major = NaN, minor = 0] = numbersOf(version)
  const [oldestMajor = 0, oldestMinor = 0] = numbersOf(than)
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor)
}

const numbersOf = (version: string) =>
  (/^\d+(?:\.\d+)?/.exec(version)?.[0] ?? '').split('.').filter(Boolean).map(Number)
