import { readFile, stat } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { problems } from '@haven/errors'
import type { Logger } from '@haven/runtime'

export interface CertificateFiles {
  readonly certPath: string
  readonly keyPath: string
}

export interface Certificate {
  readonly cert: string
  readonly key: string
}

/**
 * Reads a certificate and its key and makes sure that they belong together.
 * @throws problems.keyUnreadable
 */
export async function readCertificate({ certPath, keyPath }: CertificateFiles): Promise<Certificate> {
  try {
    const [cert, key] = await Promise.all([readFile(certPath, 'utf8'), readFile(keyPath, 'utf8')])
    createSecureContext({ cert, key })
    return { cert, key }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    throw problems.keyUnreadable({ setting: 'PROXY_TLS_CERT and PROXY_TLS_KEY', reason: code ?? message }, { cause })
  }
}

/**
 * Calls `renewed` when the files have changed and hold a valid pair. By looking, not by fs.watch: mounted secrets are replaced
 * through links, which it does not see. A pair that does not fit (half replaced) is looked at again the next time.
 */
export function watchCertificate(
  files: CertificateFiles,
  renewed: (certificate: Certificate) => void,
  { log, everyMs = 10_000 }: { log: Logger; everyMs?: number },
): Disposable {
  let known: string | null = null
  let looking = false
  const look = async () => {
    if (looking) return
    looking = true
    try {
      const version = await versionOf(files)
      if (known === null) known = version
      if (version === known) return
      renewed(await readCertificate(files))
      known = version
      log.info('the TLS certificate was replaced')
    } catch (err) {
      log.error({ err }, 'the TLS certificate cannot be renewed; the one before stays in use')
    } finally {
      looking = false
    }
  }
  void look()
  const timer = setInterval(() => void look(), everyMs)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

async function versionOf({ certPath, keyPath }: CertificateFiles): Promise<string> {
  const parts = await Promise.all([certPath, keyPath].map((path) => stat(path)))
  return parts.map(({ ino, size, mtimeMs }) => `${ino} ${size} ${mtimeMs}`).join(' ')
}
