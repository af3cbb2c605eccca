// Services between processes, served and called with Connect.
export * from './gen/haven/rpc/v1/registry_control_pb.js'
