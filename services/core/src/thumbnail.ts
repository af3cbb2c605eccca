import { decode as decodeJpeg } from 'jpeg-js'
import { GifReader } from 'omggif'
import { PNG } from 'pngjs'

/** As Harbor's icons. */
const MAX_SIDE = 50
/** A picture is as large as its header says, whatever its bytes are. Decoding needs four bytes a pixel, and nothing else runs meanwhile. */
const MAX_PIXELS = 1024 * 1024
const MAX_JPEG_MEMORY_MB = 64

/** Four bytes a pixel. */
type Picture = { width: number; height: number; rgba: Uint8Array }

/**
 * A PNG of at most 50 by 50 pixels of the PNG, JPEG or GIF that somebody pushed, written anew: nothing of its bytes is sent on (threats.md
 * A94). Null for what is no such picture, is too large, or is an interlaced PNG.
 */
export function thumbnailOf(bytes: Buffer): Buffer | null {
  let picture: Picture | null
  try {
    picture = decode(bytes)
  } catch {
    return null // The decoders throw for whatever they do not understand.
  }
  return picture && encode(shrink(picture))
}

function decode(bytes: Buffer): Picture | null {
  if (bytes[0] === 0x89) return decodePng(bytes)
  if (bytes[0] === 0xff) {
    const { width, height, data } = decodeJpeg(bytes, {
      maxResolutionInMP: MAX_PIXELS / 1e6,
      maxMemoryUsageInMB: MAX_JPEG_MEMORY_MB,
    })
    return { width, height, rgba: data }
  }
  return decodeGif(bytes)
}

function decodePng(bytes: Buffer): Picture | null {
  const header = onlyHeaderOf(bytes)
  // The decoder unpacks interlaced pictures without a bound.
  if (!header || !fits(header.readUInt32BE(0), header.readUInt32BE(4)) || header[12] !== 0) return null
  const { width, height, data } = PNG.sync.read(bytes)
  return { width, height, rgba: data }
}

/** PNG, third edition, 11.2.1: a second header would make another picture of what was looked at. */
function onlyHeaderOf(bytes: Buffer): Buffer | null {
  const headers: Buffer[] = []
  for (let at = 8; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    if (bytes.toString('latin1', at + 4, at + 8) === 'IHDR') headers.push(bytes.subarray(at + 8, at + 21))
  }
  return headers.length === 1 && headers[0]!.length === 13 ? headers[0]! : null
}

/** Its first frame. */
function decodeGif(bytes: Buffer): Picture | null {
  if (bytes.length < 10 || !fits(bytes.readUInt16LE(6), bytes.readUInt16LE(8))) return null
  const gif = new GifReader(bytes)
  const frame = gif.frameInfo(0)
  if (!fits(frame.width, frame.height)) return null
  const rgba = new Uint8Array(gif.width * gif.height * 4)
  gif.decodeAndBlitFrameRGBA(0, rgba)
  return { width: gif.width, height: gif.height, rgba }
}

const fits = (width: number, height: number) => width > 0 && height > 0 && width * height <= MAX_PIXELS

function shrink({ width, height, rgba }: Picture): Picture {
  const scale = Math.min(1, MAX_SIDE / width, MAX_SIDE / height)
  const small = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) }
  const pixels = new Uint8Array(small.width * small.height * 4)
  for (let y = 0; y < small.height; y++) {
    const line = Math.floor((y * height) / small.height) * width
    for (let x = 0; x < small.width; x++) {
      const from = (line + Math.floor((x * width) / small.width)) * 4
      pixels.set(rgba.subarray(from, from + 4), (y * small.width + x) * 4)
    }
  }
  return { ...small, rgba: pixels }
}

function encode({ width, height, rgba }: Picture): Buffer {
  const png = new PNG({ width, height })
  png.data = Buffer.from(rgba)
  return PNG.sync.write(png)
}
