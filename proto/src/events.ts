// Payloads of events, one message an event.
export * from './gen/haven/events/v1/artifacts_pb.js'
export * from './gen/haven/events/v1/groups_pb.js'
export * from './gen/haven/events/v1/header_pb.js'
export * from './gen/haven/events/v1/labels_pb.js'
export * from './gen/haven/events/v1/projects_pb.js'
export * from './gen/haven/events/v1/robots_pb.js'
export * from './gen/haven/events/v1/system_pb.js'
export * from './gen/haven/events/v1/users_pb.js'
