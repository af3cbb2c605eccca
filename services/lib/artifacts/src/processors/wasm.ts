import { buildHistory } from './image.ts'
import { wholeConfig, type Processor } from './processor.ts'

/** A WebAssembly module. */
export const wasm: Processor = {
  title: 'WASM',
  icon: 'wasm',
  attributes: wholeConfig,
  additions: { build_history: buildHistory },
}
