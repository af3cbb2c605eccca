-- Who and what the audit log names, and how many of its lines do in each month. There are far fewer names than lines: parts are looked for among
-- them instead of among trigrams of both names of each line, and what is found need not be counted.
CREATE TABLE "events"."audit_names" (
    -- actor | resource
    "kind" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    -- Its first day, UTC.
    "month" DATE NOT NULL,
    "entries" BIGINT NOT NULL,

    CONSTRAINT "audit_names_pkey" PRIMARY KEY ("kind","name","month")
) WITH (fillfactor = 80);

-- What is not yet added to them: a line is written into no index but its own, and a minute's lines of one name change its count once.
CREATE TABLE "events"."audit_name_deltas" (
    "id" BIGSERIAL NOT NULL,
    "kind" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "month" DATE NOT NULL,
    "entries" BIGINT NOT NULL,

    CONSTRAINT "audit_name_deltas_pkey" PRIMARY KEY ("id")
);

INSERT INTO "events"."audit_names" (kind, name, month, entries)
SELECT s.kind, s.name, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date, count(*)
  FROM "events"."audit_entries" e CROSS JOIN LATERAL (VALUES ('actor', e.actor), ('resource', e.resource)) AS s(kind, name)
 GROUP BY 1, 2, 3;
CREATE INDEX "audit_names_part_idx" ON "events"."audit_names" USING gin ("name" gin_trgm_ops);

-- The lines of a name, in their order, with what else counts know of them.
DROP INDEX "events"."audit_entries_actor_part_idx";
DROP INDEX "events"."audit_entries_resource_part_idx";
DROP INDEX "events"."audit_entries_actor_occurred_at_idx";
CREATE INDEX "audit_entries_actor_occurred_at_id_idx" ON "events"."audit_entries" ("actor", "occurred_at", "id")
  INCLUDE ("operation", "resource_type", "project_id");
CREATE INDEX "audit_entries_resource_occurred_at_id_idx" ON "events"."audit_entries" ("resource", "occurred_at", "id");

CREATE FUNCTION "events"."count_audit_names"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO events.audit_name_deltas (kind, name, month, entries)
  SELECT s.kind, s.name, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date,
         CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed e CROSS JOIN LATERAL (VALUES ('actor', e.actor), ('resource', e.resource)) AS s(kind, name)
   GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;
CREATE TRIGGER "count_inserted_names" AFTER INSERT ON "events"."audit_entries"
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "events"."count_audit_names"();
CREATE TRIGGER "count_deleted_names" AFTER DELETE ON "events"."audit_entries"
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "events"."count_audit_names"();
-- Of somebody who was deleted, the name is replaced.
CREATE FUNCTION "events"."recount_audit_names"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO events.audit_name_deltas (kind, name, month, entries)
  SELECT s.kind, s.name, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date, sum(e.one)
    FROM (SELECT occurred_at, actor, resource, 1 AS one FROM after
          UNION ALL SELECT occurred_at, actor, resource, -1 FROM before) e
         CROSS JOIN LATERAL (VALUES ('actor', e.actor), ('resource', e.resource)) AS s(kind, name)
   GROUP BY 1, 2, 3 HAVING sum(e.one) <> 0;
  RETURN NULL;
END $$;
CREATE TRIGGER "recount_names" AFTER UPDATE ON "events"."audit_entries"
  REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION "events"."recount_audit_names"();
CREATE OR REPLACE FUNCTION "events"."forget_audit_counts"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM events.audit_counts;
  DELETE FROM events.audit_day_counts;
  DELETE FROM events.audit_names;
  DELETE FROM events.audit_name_deltas;
  RETURN NULL;
END $$;
