-- Which changes of a listed table have been committed. A process may remember the rows of a list, in their order, for as long as it sees the
-- same lines here. Lines and not a number that grows: whoever changes a table waits for nobody else who does, and none can hide behind
-- another that was committed before it. `salt`: after a restore the same ids come again, for other changes.
CREATE TABLE "system"."list_changes" (
    "id" BIGSERIAL NOT NULL,
    "listed" TEXT NOT NULL,
    "salt" INTEGER NOT NULL DEFAULT (random() * 2147483647)::int,

    CONSTRAINT "list_changes_pkey" PRIMARY KEY ("id")
);
CREATE INDEX "list_changes_listed_id_idx" ON "system"."list_changes" ("listed", "id");

-- Only the newest lines are kept: what matters is that there is one that was not there before. Whoever removes old ones at the same time
-- is not waited for.
CREATE FUNCTION "system"."note_list"(name TEXT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO system.list_changes (listed) VALUES (name);
  DELETE FROM system.list_changes WHERE id IN (
    SELECT id FROM system.list_changes WHERE listed = name ORDER BY id DESC OFFSET 8 LIMIT 100 FOR UPDATE SKIP LOCKED);
END $$;
CREATE FUNCTION "system"."note_list_change"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM system.note_list(TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
  RETURN NULL;
END $$;

CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "identity"."users"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "identity"."groups"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "identity"."robots"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "identity"."grants"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "projects"."projects"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "projects"."project_metadata"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON "projects"."labels"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
CREATE TRIGGER "list_change" AFTER INSERT OR DELETE OR TRUNCATE ON "projects"."quotas"
  FOR EACH STATEMENT EXECUTE FUNCTION "system"."note_list_change"();
-- What is used is added up every few seconds, though most times there is nothing to add.
CREATE FUNCTION "projects"."note_quota_change"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM changed) THEN
    PERFORM system.note_list('projects.quotas');
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "list_change_of_some" AFTER UPDATE ON "projects"."quotas"
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "projects"."note_quota_change"();
