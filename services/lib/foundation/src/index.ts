export { Foundation, foundationConfig } from './foundation.ts'
