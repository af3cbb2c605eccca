import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'

export const healthHandlers: Handlers = {
  async getHealth(_call, { health }) {
    const components = await health.components()
    const healthy = components.every((component) => component.status === 'healthy')
    return ok({ status: healthy ? 'healthy' : 'unhealthy', components })
  },
}
