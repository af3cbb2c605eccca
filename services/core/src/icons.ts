import { crc32, deflateSync } from 'node:zlib'
import { digestOf } from '@haven/oci'

type Colour = readonly [red: number, green: number, blue: number]
type Icon = { digest: string; png: Buffer }

const BITS = 8
const SCALE = 6

/**
 * Eight rows of eight pixels, `#` for drawn. `digest`: under which clients of Harbor know the icon of this type; there too it is the name
 * of the icon, and not the digest of the PNG that is sent.
 */
type Drawing = { colour: Colour; rows: readonly string[]; digest?: string }

const drawings: Readonly<Record<string, Drawing>> = {
  image: {
    digest: 'sha256:0048162a053eef4d4ce3fe7518615bef084403614f8bca43b40ae2e762e11e06',
    colour: [37, 99, 235],
    rows: ['........', '.######.', '.#....#.', '.######.', '.#....#.', '.######.', '........', '........'],
  },
  chart: {
    digest: 'sha256:61cf3a178ff0f75bf08a25d96b75cf7355dc197749a9f128ed3ef34b0df05518',
    colour: [15, 118, 110],
    rows: ['........', '......#.', '......#.', '...#..#.', '...#..#.', '.#.#..#.', '.######.', '........'],
  },
  cnab: {
    digest: 'sha256:089bdda265c14d8686111402c8ad629e8177a1ceb7dcd0f7f39b6480f623b3bd',
    colour: [2, 132, 199],
    rows: ['........', '.######.', '.#.##.#.', '.######.', '.#....#.', '.#....#.', '.######.', '........'],
  },
  cnai: {
    colour: [79, 70, 229],
    rows: ['...##...', '..#..#..', '.#.##.#.', '#.#..#.#', '#.#..#.#', '.#.##.#.', '..#..#..', '...##...'],
  },
  wasm: {
    digest: 'sha256:badd7693bcaf115be202748241dd0ea6ee3b0524bfab9ac22d1e1c43721afec6',
    colour: [101, 79, 240],
    rows: ['........', '.#....#.', '.#....#.', '.#.##.#.', '.##..##.', '.#....#.', '........', '........'],
  },
  sbom: {
    colour: [180, 83, 9],
    rows: ['........', '.#.####.', '........', '.#.####.', '........', '.#.####.', '........', '........'],
  },
  unknown: {
    digest: 'sha256:da834479c923584f4cbcdecc0dac61f32bef1d51e8aae598cf16bd154efab49f',
    colour: [100, 116, 139],
    rows: ['...##...', '..####..', '.######.', '.######.', '.######.', '.######.', '..####..', '...##...'],
  },
  'signature.cosign': {
    digest: 'sha256:20401d5b3a0f6dbc607c8d732eb08471af4ae6b19811a4efce8c6a724aed2882',
    colour: [190, 24, 93],
    rows: ['........', '......#.', '.....##.', '.#..##..', '.####...', '..##....', '........', '........'],
  },
  'signature.notation': {
    digest: 'sha256:3ac706e102bbe9362b400aa162df58135d35e66b9c3bee2165de92022d25fe34',
    colour: [126, 34, 206],
    rows: ['........', '......#.', '.....##.', '.#..##..', '.####...', '..##....', '........', '.######.'],
  },
  'accelerator.nydus': {
    digest: 'sha256:dfcb6617cd9c144358dc1b305b87bbe34f0b619f1e329116e6aee2e41f2e34cf',
    colour: [22, 163, 74],
    rows: ['........', '.#....#.', '.##...#.', '.#.#..#.', '.#..#.#.', '.#...##.', '.#....#.', '........'],
  },
}

const icons = new Map<string, Icon>(
  Object.entries(drawings).map(([name, { colour, rows, digest }]) => {
    const png = draw(rows, colour)
    return [name, { png, digest: digest ?? digestOf(png) }]
  }),
)
const byDigest = new Map([...icons.values()].map((icon) => [icon.digest, icon]))

/** The digest under which `/icons` has the icon of this name. */
export const iconDigest = (name: string): string => (icons.get(name) ?? icons.get('unknown')!).digest

/** Of an accessory; empty where its type has none, as in Harbor. */
export const accessoryIcon = (type: string): string =>
  type === 'sbom.harbor' ? iconDigest('sbom') : (icons.get(type)?.digest ?? '')

/** A PNG. Null when no icon has this digest. */
export const findIcon = (digest: string): Buffer | null => byDigest.get(digest)?.png ?? null

/** PNG, third edition: a palette of nothing and one colour, one bit a pixel. */
function draw(rows: readonly string[], [red, green, blue]: Colour): Buffer {
  const side = BITS * SCALE
  const header = Buffer.alloc(13)
  header.writeUInt32BE(side, 0)
  header.writeUInt32BE(side, 4)
  header.set([1, 3, 0, 0, 0], 8)
  const lines = rows.flatMap((row) => {
    const pixels = row.replaceAll('#', '1'.repeat(SCALE)).replaceAll('.', '0'.repeat(SCALE))
    const bytes = pixels.match(/.{8}/g)!.map((bits) => Number.parseInt(bits, 2))
    return Array.from({ length: SCALE }, () => [0, ...bytes]).flat()
  })
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', header),
    chunk('PLTE', Buffer.from([255, 255, 255, red, green, blue])),
    chunk('tRNS', Buffer.from([0])),
    chunk('IDAT', deflateSync(Buffer.from(lines))),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  const framed = Buffer.alloc(body.length + 8)
  framed.writeUInt32BE(data.length, 0)
  body.copy(framed, 4)
  framed.writeUInt32BE(crc32(body), body.length + 4)
  return framed
}
