-- Which item it was that an execution could not do, for another try, and why in one word.
alter table jobs.item_failures add column item_id bigint, add column reason text not null default 'other';

-- What an execution has changed on which of its many items, for an undo.
create table jobs.item_effects (
  execution_id bigint not null references jobs.executions (id) on delete cascade,
  item_id bigint not null,
  detail text not null default '',
  primary key (execution_id, item_id, detail)
);
