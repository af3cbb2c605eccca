-- What an execution could not do of its many items, one by one.
create table jobs.item_failures (
  id bigserial primary key,
  execution_id bigint not null references jobs.executions (id) on delete cascade,
  item text not null,
  code text not null,
  message text not null
);
create index item_failures_execution_id_id_idx on jobs.item_failures (execution_id, id);

-- Under which key a client asked for an execution, so that asking twice starts one.
create table jobs.idempotency_keys (
  owner text not null,
  key text not null,
  request_hash bytea not null,
  execution_id bigint not null references jobs.executions (id) on delete cascade,
  primary key (owner, key)
);
create index idempotency_keys_execution_id_idx on jobs.idempotency_keys (execution_id);
