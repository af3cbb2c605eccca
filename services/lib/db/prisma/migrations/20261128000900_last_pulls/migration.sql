-- When a manifest was pulled last, apart from it. A manifest's row is wide, lies in a dozen indexes, and pushes that name it hold it: the first pull of
-- a day wrote it into all of them anew. No key to it: that would lock its row for each pull. `pulled_at` and `pulled_day` of manifests stay for
-- processes of the release before; nothing reads them any more.
CREATE TABLE "artifacts"."last_pulls" (
    "manifest_id" BIGINT NOT NULL,
    "pulled_at" TIMESTAMPTZ(3) NOT NULL,
    -- Of pulled_at, in UTC: its index is written at most once a day for a manifest.
    "pulled_day" DATE NOT NULL
) WITH (fillfactor = 80);
INSERT INTO "artifacts"."last_pulls" ("manifest_id", "pulled_at", "pulled_day")
SELECT "id", "pulled_at", ("pulled_at" AT TIME ZONE 'UTC')::date FROM "artifacts"."manifests" WHERE "pulled_at" IS NOT NULL ORDER BY "id";
ALTER TABLE "artifacts"."last_pulls" ADD CONSTRAINT "last_pulls_pkey" PRIMARY KEY ("manifest_id");
CREATE INDEX "last_pulls_pulled_day_idx" ON "artifacts"."last_pulls" ("pulled_day");
DROP INDEX "artifacts"."manifests_pulled_day_idx";

CREATE FUNCTION "artifacts"."forget_last_pulls"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM artifacts.last_pulls p USING gone WHERE p.manifest_id = gone.id;
  RETURN NULL;
END $$;
CREATE TRIGGER "forget_last_pulls" AFTER DELETE ON "artifacts"."manifests"
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION "artifacts"."forget_last_pulls"();
-- What was deleted and pushed again was not pulled since; what was restored was.
CREATE FUNCTION "artifacts"."forget_last_pull"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM artifacts.last_pulls WHERE manifest_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER "forget_last_pull" AFTER UPDATE OF "deleted_at", "pushed_at" ON "artifacts"."manifests"
  FOR EACH ROW WHEN (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL AND NEW.pushed_at <> OLD.pushed_at)
  EXECUTE FUNCTION "artifacts"."forget_last_pull"();

-- A pull changes a tag in its place: none of its indexes has pulled_at, if only its page has room.
ALTER TABLE "artifacts"."tags" SET (fillfactor = 80);
