-- Pages of the audit log are read in its order, ties included, and one person's lines are found by name.
DROP INDEX "events"."audit_entries_occurred_at_idx";
DROP INDEX "events"."audit_entries_project_id_occurred_at_idx";
CREATE INDEX "audit_entries_occurred_at_id_idx" ON "events"."audit_entries"("occurred_at", "id");
CREATE INDEX "audit_entries_project_id_occurred_at_id_idx" ON "events"."audit_entries"("project_id", "occurred_at", "id");
CREATE INDEX "audit_entries_actor_occurred_at_idx" ON "events"."audit_entries"("actor", "occurred_at");

-- How many entries there are, so that a page of a million lines costs what a page of a thousand costs. scope: a project's id, 0 for
-- entries of none, -1 for all together. month: its first day in UTC.
CREATE TABLE "events"."audit_counts" (
    "scope" INTEGER NOT NULL,
    "month" DATE NOT NULL,
    "operation" TEXT NOT NULL,
    "resource_type" TEXT NOT NULL,
    "entries" BIGINT NOT NULL,

    CONSTRAINT "audit_counts_pkey" PRIMARY KEY ("scope","month","operation","resource_type")
);

-- Kept by the database, so that no statement can change the entries and forget them. Rows are taken in one order: two that count at
-- once wait for each other rather than for ever.
CREATE FUNCTION "events"."count_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO events.audit_counts AS c (scope, month, operation, resource_type, entries)
  SELECT s.scope, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date, e.operation, e.resource_type,
         CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope)
   GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (scope, month, operation, resource_type) DO UPDATE SET entries = c.entries + excluded.entries;
  RETURN NULL;
END $$;
CREATE TRIGGER "count_inserted" AFTER INSERT ON "events"."audit_entries"
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "events"."count_audit"();
CREATE TRIGGER "count_deleted" AFTER DELETE ON "events"."audit_entries"
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "events"."count_audit"();

CREATE FUNCTION "events"."forget_audit_counts"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM events.audit_counts;
  RETURN NULL;
END $$;
CREATE TRIGGER "forget_counts" AFTER TRUNCATE ON "events"."audit_entries"
  FOR EACH STATEMENT EXECUTE FUNCTION "events"."forget_audit_counts"();

INSERT INTO "events"."audit_counts" (scope, month, operation, resource_type, entries)
SELECT s.scope, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date, e.operation, e.resource_type, count(*)
  FROM "events"."audit_entries" e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope)
 GROUP BY 1, 2, 3, 4;

-- Entries on their way to the syslog receiver. A row goes when it was sent; until claimed_until somebody is sending it.
CREATE TABLE "events"."audit_forwards" (
    "id" BIGSERIAL NOT NULL,
    "entry" JSONB NOT NULL,
    "claimed_until" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "audit_forwards_pkey" PRIMARY KEY ("id")
);
