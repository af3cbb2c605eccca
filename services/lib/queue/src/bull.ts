// By names of its own: a bundle that imports a package in CommonJS when it runs gets nothing but its default.
export { DelayedError, Queue, Worker } from 'bullmq'
