/** Harbor's words (status machine of its job service): a task only moves to the right within one attempt. */
export type TaskStatus = 'Pending' | 'Scheduled' | 'Running' | 'Stopped' | 'Error' | 'Success'
export type ExecutionStatus = 'Pending' | 'Running' | 'Stopping' | 'Stopped' | 'Error' | 'Success'
export type Trigger = 'MANUAL' | 'SCHEDULE' | 'EVENT'

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined }
export type JsonObject = { readonly [key: string]: Json | undefined }

export const isFinal = (status: string): boolean => status === 'Stopped' || status === 'Error' || status === 'Success'
