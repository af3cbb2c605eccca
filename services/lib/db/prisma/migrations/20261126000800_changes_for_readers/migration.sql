-- What processes that remember answers of pulls must forget: a row for each transaction and repository that took something away. They ask for
-- rows of transactions that may have committed since they last asked, so that none is missed whatever the order of commits.
CREATE TABLE "artifacts"."changes" (
  "transaction_id" BIGINT NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
  -- 0: any.
  "repository_id" INTEGER NOT NULL,
  "changed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT "changes_pkey" PRIMARY KEY ("transaction_id", "repository_id")
);
CREATE INDEX "changes_changed_at_idx" ON "artifacts"."changes" ("changed_at");

-- Processes that remember answers. Whoever takes something away waits for them before it says so.
CREATE TABLE "artifacts"."readers" (
  "id" UUID NOT NULL,
  "until" TIMESTAMPTZ(3) NOT NULL,
  CONSTRAINT "readers_pkey" PRIMARY KEY ("id")
);

CREATE FUNCTION "artifacts"."took_away"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  repository INTEGER := 0;
BEGIN
  IF TG_TABLE_NAME = 'repositories' THEN repository := OLD.id;
  ELSIF TG_TABLE_NAME IN ('tags', 'manifests', 'blob_links') THEN repository := OLD.repository_id;
  END IF;
  INSERT INTO artifacts.changes (repository_id) VALUES (repository) ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;

CREATE TRIGGER "took_away" AFTER DELETE ON "artifacts"."repositories" FOR EACH ROW EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."repositories" FOR EACH ROW
  WHEN ((OLD.project_id, OLD.path, OLD.deleted_at) IS DISTINCT FROM (NEW.project_id, NEW.path, NEW.deleted_at)) EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away" AFTER DELETE ON "artifacts"."tags" FOR EACH ROW EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."tags" FOR EACH ROW
  WHEN ((OLD.repository_id, OLD.name, OLD.manifest_id) IS DISTINCT FROM (NEW.repository_id, NEW.name, NEW.manifest_id)) EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away" AFTER DELETE ON "artifacts"."manifests" FOR EACH ROW EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."manifests" FOR EACH ROW
  WHEN ((OLD.repository_id, OLD.digest, OLD.media_type, OLD.deleted_at) IS DISTINCT FROM (NEW.repository_id, NEW.digest, NEW.media_type, NEW.deleted_at))
  EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away" AFTER DELETE ON "artifacts"."blob_links" FOR EACH ROW EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."blob_links" FOR EACH ROW
  WHEN ((OLD.repository_id, OLD.blob_id) IS DISTINCT FROM (NEW.repository_id, NEW.blob_id)) EXECUTE FUNCTION "artifacts"."took_away"();
-- A blob whose last link has gone is nobody's answer; one that was damaged or lies elsewhere now may be many's.
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."blobs" FOR EACH ROW
  WHEN ((OLD.damaged_at, OLD.size_bytes) IS DISTINCT FROM (NEW.damaged_at, NEW.size_bytes)) EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away" AFTER DELETE ON "artifacts"."blob_locations" FOR EACH ROW EXECUTE FUNCTION "artifacts"."took_away"();
CREATE TRIGGER "took_away_by_update" AFTER UPDATE ON "artifacts"."blob_locations" FOR EACH ROW
  WHEN ((OLD.store, OLD.key) IS DISTINCT FROM (NEW.store, NEW.key)) EXECUTE FUNCTION "artifacts"."took_away"();
