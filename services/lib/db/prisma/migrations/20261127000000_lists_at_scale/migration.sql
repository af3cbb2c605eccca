-- A page of a list costs the same in a small installation and in a large one: each order that a list is shown in has an index that holds
-- what the list leaves out, too, so that rows are passed over and counted in the index alone.

-- Parts of names are found by their trigrams. Postgres has trusted this extension since 13: whoever may make schemas may make it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- identity
CREATE INDEX "users_username_id_idx" ON "identity"."users" ("username", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "users_email_id_idx" ON "identity"."users" ("email", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "users_created_at_id_idx" ON "identity"."users" ("created_at", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "users_username_part_idx" ON "identity"."users" USING gin ("username" gin_trgm_ops) WHERE "deleted_at" IS NULL;
CREATE INDEX "users_email_part_idx" ON "identity"."users" USING gin ("email" gin_trgm_ops) WHERE "deleted_at" IS NULL;

DROP INDEX "identity"."robots_project_id_name_idx";
CREATE INDEX "robots_project_id_name_id_idx" ON "identity"."robots" ("project_id", "name", "id") WHERE "deleted_at" IS NULL AND "visible";
CREATE INDEX "robots_name_part_idx" ON "identity"."robots" USING gin ("name" gin_trgm_ops) WHERE "deleted_at" IS NULL AND "visible";

CREATE INDEX "groups_provider_id_idx" ON "identity"."groups" ("provider", "id");
CREATE INDEX "groups_name_part_idx" ON "identity"."groups" USING gin ("name" gin_trgm_ops);

-- How many users there are, by thousands of ids: the count of all, and where in the list a page begins. Kept by the database, so that
-- no statement can change the users and forget it. In parts, so that not everybody who makes a user waits for everybody else.
CREATE TABLE "identity"."user_counts" (
    "thousand" INTEGER NOT NULL,
    "users" INTEGER NOT NULL,

    CONSTRAINT "user_counts_pkey" PRIMARY KEY ("thousand")
);
CREATE FUNCTION "identity"."count_users"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO identity.user_counts AS c (thousand, users)
  SELECT id / 1000, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed WHERE deleted_at IS NULL GROUP BY 1 ORDER BY 1
  ON CONFLICT (thousand) DO UPDATE SET users = c.users + excluded.users;
  RETURN NULL;
END $$;
CREATE TRIGGER "count_inserted" AFTER INSERT ON "identity"."users"
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "identity"."count_users"();
CREATE TRIGGER "count_removed" AFTER DELETE ON "identity"."users"
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "identity"."count_users"();
CREATE FUNCTION "identity"."recount_user"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO identity.user_counts AS c (thousand, users)
  VALUES (NEW.id / 1000, CASE WHEN NEW.deleted_at IS NULL THEN 1 ELSE -1 END)
  ON CONFLICT (thousand) DO UPDATE SET users = c.users + excluded.users;
  RETURN NULL;
END $$;
CREATE TRIGGER "count_deleted" AFTER UPDATE OF "deleted_at" ON "identity"."users"
  FOR EACH ROW WHEN ((OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL)) EXECUTE FUNCTION "identity"."recount_user"();
CREATE FUNCTION "identity"."forget_user_counts"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM identity.user_counts;
  RETURN NULL;
END $$;
CREATE TRIGGER "forget_counts" AFTER TRUNCATE ON "identity"."users"
  FOR EACH STATEMENT EXECUTE FUNCTION "identity"."forget_user_counts"();
INSERT INTO "identity"."user_counts" (thousand, users)
SELECT id / 1000, count(*) FROM "identity"."users" WHERE deleted_at IS NULL GROUP BY 1;

-- projects
CREATE INDEX "projects_name_id_idx" ON "projects"."projects" ("name", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "projects_created_at_id_idx" ON "projects"."projects" ("created_at", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "projects_name_part_idx" ON "projects"."projects" USING gin ("name" gin_trgm_ops) WHERE "deleted_at" IS NULL;
DROP INDEX "projects"."project_metadata_name_value_idx";
CREATE INDEX "project_metadata_name_value_project_id_idx" ON "projects"."project_metadata" ("name", "value", "project_id");
CREATE INDEX "quotas_used_bytes_project_id_idx" ON "projects"."quotas" ("used_bytes", "project_id");
CREATE INDEX "labels_project_id_id_idx" ON "projects"."labels" ("project_id", "id") WHERE "deleted_at" IS NULL;
CREATE INDEX "labels_name_part_idx" ON "projects"."labels" USING gin ("name" gin_trgm_ops) WHERE "deleted_at" IS NULL;

-- The audit log: what its counts know is in the index of its order, too; and parts of what its filters ask for.
DROP INDEX "events"."audit_entries_occurred_at_id_idx";
DROP INDEX "events"."audit_entries_project_id_occurred_at_id_idx";
CREATE INDEX "audit_entries_occurred_at_id_idx" ON "events"."audit_entries" ("occurred_at", "id") INCLUDE ("operation", "resource_type");
CREATE INDEX "audit_entries_project_id_occurred_at_id_idx" ON "events"."audit_entries" ("project_id", "occurred_at", "id")
  INCLUDE ("operation", "resource_type");
CREATE INDEX "audit_entries_actor_part_idx" ON "events"."audit_entries" USING gin ("actor" gin_trgm_ops);
CREATE INDEX "audit_entries_resource_part_idx" ON "events"."audit_entries" USING gin ("resource" gin_trgm_ops);

-- The same counts by day: in a month of many lines, they say on which day a page begins.
CREATE TABLE "events"."audit_day_counts" (
    "scope" INTEGER NOT NULL,
    "day" DATE NOT NULL,
    "operation" TEXT NOT NULL,
    "resource_type" TEXT NOT NULL,
    "entries" BIGINT NOT NULL,

    CONSTRAINT "audit_day_counts_pkey" PRIMARY KEY ("scope","day","operation","resource_type")
);
CREATE OR REPLACE FUNCTION "events"."count_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO events.audit_counts AS c (scope, month, operation, resource_type, entries)
  SELECT s.scope, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date, e.operation, e.resource_type,
         CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope)
   GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (scope, month, operation, resource_type) DO UPDATE SET entries = c.entries + excluded.entries;
  INSERT INTO events.audit_day_counts AS c (scope, day, operation, resource_type, entries)
  SELECT s.scope, (e.occurred_at AT TIME ZONE 'UTC')::date, e.operation, e.resource_type,
         CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope)
   GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (scope, day, operation, resource_type) DO UPDATE SET entries = c.entries + excluded.entries;
  RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION "events"."forget_audit_counts"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM events.audit_counts;
  DELETE FROM events.audit_day_counts;
  RETURN NULL;
END $$;
INSERT INTO "events"."audit_day_counts" (scope, day, operation, resource_type, entries)
SELECT s.scope, (e.occurred_at AT TIME ZONE 'UTC')::date, e.operation, e.resource_type, count(*)
  FROM "events"."audit_entries" e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope)
 GROUP BY 1, 2, 3, 4;
