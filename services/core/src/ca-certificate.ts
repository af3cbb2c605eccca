import { readFile } from 'node:fs/promises'
import type { CoreSettings } from './config.ts'

/** The authority that an operator named, else the certificate that this installation made for itself; null when there is neither. */
export async function caCertificate({
  caCertificate: given,
  selfSignedCertificate: path,
}: Pick<CoreSettings, 'caCertificate' | 'selfSignedCertificate'>): Promise<string | null> {
  if (given || path === undefined) return given?.text ?? null
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
