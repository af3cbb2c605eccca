import { failure, reasonOf, type Finding, type Look } from './doctor/finding.ts'
import { survey, type Ground } from './doctor/ground.ts'
import { lookAtCertificate } from './doctor/look-at-certificate.ts'
import { lookAtClients } from './doctor/look-at-clients.ts'
import { lookAtDatabase } from './doctor/look-at-database.ts'
import { lookAtLogs } from './doctor/look-at-logs.ts'
import { lookAtMachine } from './doctor/look-at-machine.ts'
import { lookAtNames } from './doctor/look-at-names.ts'
import { lookAtRedis } from './doctor/look-at-redis.ts'
import { lookAtSettings } from './doctor/look-at-settings.ts'
import { lookAtStore } from './doctor/look-at-store.ts'

const looks: Readonly<Record<string, (ground: Ground) => Promise<Look[]>>> = {
  settings: lookAtSettings,
  machine: lookAtMachine,
  names: lookAtNames,
  Postgres: lookAtDatabase,
  Redis: lookAtRedis,
  store: lookAtStore,
  certificate: lookAtCertificate,
  'log collector': lookAtLogs,
  clients: lookAtClients,
}

const PATIENCE_MS = 15_000

/**
 * Looks at everything that this installation stands on, at once, and says what to do about what is wrong; whether it runs or not. Changes
 * nothing, but for an object in the store that is removed again.
 * @param json one JSON object `{well, findings, looks}` instead of lines for a person
 * @returns whether nothing failed; warnings may be left.
 */
export async function doctor(env: NodeJS.ProcessEnv, json: boolean, print: (line: string) => void): Promise<boolean> {
  await using ground = survey(env)
  const seen = (await Promise.all(Object.entries(looks).map(([at, look]) => within(at, look(ground))))).flat()
  const shown = seen.map((look) => withoutSecrets(look, ground.secrets))
  const findings = shown.flatMap((look) => look.findings)
  const well = !findings.some(({ severity }) => severity === 'failure')
  if (json) print(JSON.stringify({ well, findings, looks: shown.map(({ at, said }) => ({ at, said })) }, null, 2))
  else for (const line of shown.flatMap(linesOf)) print(line)
  return well
}

/** A look that fails or does not end is a finding, too. */
async function within(at: string, looking: Promise<Look[]>): Promise<Look[]> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it did not end within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
  })
  try {
    return await Promise.race([looking, late])
  } catch (error) {
    const finding = failure(
      'doctor.failed',
      `${at} could not be looked at: ${reasonOf(error)}`,
      'see whether it answers at all',
    )
    return [{ at, said: 'could not be looked at', findings: [finding] }]
  } finally {
    clearTimeout(timer)
  }
}

function withoutSecrets({ at, said, findings }: Look, secrets: readonly string[]): Look {
  // The longest first: one may begin with another.
  const hidden = secrets.toSorted((a, b) => b.length - a.length)
  const hide = (text: string) => hidden.reduce((left, secret) => left.replaceAll(secret, '***'), text)
  return {
    at,
    said: hide(said),
    findings: findings.map(({ what, todo, ...rest }) => ({ ...rest, what: hide(what), todo: hide(todo) })),
  }
}

function linesOf({ at, said, findings }: Look): string[] {
  const mark = findings.some(isFailure) ? 'BAD ' : findings.length > 0 ? 'WARN' : 'ok  '
  return [
    `${mark} ${at.padEnd(14)} ${said}`,
    ...findings.flatMap(({ id, what, todo }) => [`       ${id}: ${what}`, `       -> ${todo}`]),
  ]
}

const isFailure = ({ severity }: Finding) => severity === 'failure'
