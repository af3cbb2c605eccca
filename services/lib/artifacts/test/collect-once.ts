// One whole run of garbage collection in a process of its own, for a test that kills it: node collect-once.ts <database> <folder>.
import { openDatabase } from '@haven/db'
import { charge } from '@haven/projects'
import { FileStorage } from '@haven/storage'
import { buryUntagged, eraseTrash, forgetBlobs, gcDeps, purgeTombstones, unlinkBlobs } from '../src/gc/index.ts'

const [url = '', folder = ''] = process.argv.slice(2)
await using db = openDatabase({ url, applicationName: 'collect-once', poolSize: 2 })
await using storage = await FileStorage.open(folder)
const settings = { promiseSeconds: 1, trashSeconds: 0, tombstoneSeconds: 0 }
const gc = gcDeps({ db, settings, quota: charge, projects: { byId: () => Promise.resolve(null) } })
const run = { executionId: null, actor: 'gc' }
await buryUntagged(gc, run)
await purgeTombstones(gc, run)
await unlinkBlobs(gc, run)
await forgetBlobs(gc, run)
await eraseTrash(db, storage)
