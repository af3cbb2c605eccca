// Parameters of jobs, one message a job type.
export * from './gen/haven/jobs/v1/garbage_collection_pb.js'
