const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** Bytes for people, 1024-based with one decimal as Harbor prints them: `17 B`, `1.5 KiB`, `25.0 MiB`. */
export function formatBytes(bytes: number): string {
  if (Math.abs(bytes) < 1024) return `${bytes} B`
  let value = bytes / 1024
  let unit = 0
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${value.toFixed(1)} ${units[unit]}`
}
