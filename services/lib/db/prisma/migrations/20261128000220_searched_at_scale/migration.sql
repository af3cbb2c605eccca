-- Parts of names of repositories, for words and patterns that begin with a star. A push to a repository that is there does not touch it.
CREATE INDEX "repositories_path_part_idx" ON "artifacts"."repositories" USING gin ("path" gin_trgm_ops);

-- The day of pulled_at, for searches by it. Its index is written at most once a day for an artifact, and by no push: one of pulled_at itself would
-- make every pull that is written down rewrite all indexes.
ALTER TABLE "artifacts"."manifests" ADD COLUMN "pulled_day" DATE;
UPDATE "artifacts"."manifests" SET "pulled_day" = ("pulled_at" AT TIME ZONE 'UTC')::date WHERE "pulled_at" IS NOT NULL;
CREATE INDEX "manifests_pulled_day_idx" ON "artifacts"."manifests" ("pulled_day") WHERE "pulled_day" IS NOT NULL;
