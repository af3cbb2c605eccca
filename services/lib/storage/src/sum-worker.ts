import { createHash, type Hash } from 'node:crypto'
import { parentPort } from 'node:worker_threads'
import type { SumOrder } from './running-sum.ts'

// The other side of running-sum.ts. Orders are carried out one after the other; those that are waited for are answered in their order.
const sums = new Map<number, Hash>()
const port = parentPort!

port.on('message', (order: SumOrder) => {
  switch (order.do) {
    case 'begin':
      sums.set(order.id, createHash(order.algorithm))
      break
    case 'copy':
      sums.set(order.to, sums.get(order.id)!.copy())
      break
    case 'update':
      sums.get(order.id)!.update(order.bytes)
      port.postMessage(null)
      break
    case 'digest':
      port.postMessage(sums.get(order.id)!.copy().digest('hex'))
      break
    case 'drop':
      sums.delete(order.id)
  }
})
