import { Redis } from 'ioredis'
import { failure, reasonOf, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'
import { isOlder, oldest } from './oldest.ts'

const WAIT_MS = 3_000
const NEARLY_FULL = 0.9

/** Redis by what INFO says, which is allowed where CONFIG is not. */
export async function lookAtRedis({ redisUrl }: Ground): Promise<Look[]> {
  const at = 'Redis'
  if (redisUrl === null) return [{ at, said: 'embedded, and not running: make up starts it', findings: [] }]
  let client: Redis | null = null
  try {
    client = new Redis(redisUrl, {
      maxRetriesPerRequest: 0,
      connectTimeout: WAIT_MS,
      commandTimeout: WAIT_MS,
      lazyConnect: true,
      retryStrategy: null,
    })
    let heard: unknown = null
    // The connect below fails with less of a reason.
    client.on('error', (error) => (heard = error))
    await client.connect().catch((error: unknown) => {
      throw heard ?? error
    })
    const info = infoOf(await client.info())
    // Where CONFIG is forbidden, somebody else cares for what is kept.
    const snapshots = await client.config('GET', 'save').then(JSON.stringify, () => 'unknown')
    return [judge(info, info.get('aof_enabled') !== '0' || !/"save"(?::|,)""/.test(snapshots))]
  } catch (error) {
    const todo = 'see that it runs, and that REDIS_URL names its host, port, user and password'
    const finding = failure('redis.unreachable', `Redis does not let us in: ${reasonOf(error)}`, todo)
    return [{ at, said: 'does not answer', findings: [finding] }]
  } finally {
    client?.disconnect()
  }
}

type Info = ReadonlyMap<string, string>

const infoOf = (text: string): Info =>
  new Map(
    text
      .split(/\r?\n/)
      .filter((line) => line.includes(':'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  )

function judge(info: Info, keeps: boolean): Look {
  const version = info.get('redis_version') ?? 'unknown'
  const policy = info.get('maxmemory_policy') ?? ''
  const [used, most] = [Number(info.get('used_memory') ?? 0), Number(info.get('maxmemory') ?? 0)]
  const findings: Finding[] = []
  const find = (when: boolean, finding: Finding) => when && findings.push(finding)
  find(
    isOlder(version, oldest.redis),
    failure('redis.old', `Redis is ${version}`, `upgrade to Redis ${oldest.redis}, Valkey 7, or a newer one`),
  )
  find(
    policy !== '' && policy !== 'noeviction',
    failure(
      'redis.evicts',
      `Redis runs with maxmemory-policy ${policy}: it throws jobs and sessions away when its memory is full`,
      'set maxmemory-policy noeviction',
    ),
  )
  find(
    most > 0 && used > most * NEARLY_FULL,
    failure(
      'redis.full',
      `Redis uses ${Math.round((used / most) * 100)} % of its maxmemory and will refuse to write`,
      'raise maxmemory; nothing else should live in this Redis',
    ),
  )
  find(
    info.get('role') === 'slave',
    failure('redis.replica', 'Redis is a replica and takes no changes', 'name the primary in REDIS_URL'),
  )
  find(
    info.get('aof_last_write_status') === 'err' || info.get('rdb_last_bgsave_status') === 'err',
    failure('redis.disk', 'Redis could not write to its disk', 'make room on its disk, and see its log'),
  )
  // Redis may be emptied at any time, so that this costs sign-ins and no data.
  find(
    !keeps,
    warning(
      'redis.forgets',
      'Redis keeps nothing on a disk: a restart of it signs everybody out',
      'set appendonly yes',
    ),
  )
  return { at: 'Redis', said: `${version}, ${policy || 'policy unknown'}`, findings }
}
