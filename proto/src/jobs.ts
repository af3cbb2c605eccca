// Parameters of jobs, one message a job type.
export * from './gen/haven/jobs/v1/bulk_operation_pb.js'
export * from './gen/haven/jobs/v1/garbage_collection_pb.js'
export * from './gen/haven/jobs/v1/mask_audit_log_pb.js'
export * from './gen/haven/jobs/v1/purge_audit_log_pb.js'
