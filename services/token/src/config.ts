import { defineConfig } from '@haven/config'
import { serviceSettings } from '@haven/runtime'

/** The token service as a process of its own. How long its tokens live is a setting of the installation: `token_expiration`. */
export const tokenConfig = defineConfig('TOKEN', serviceSettings({ port: 5001 }))
