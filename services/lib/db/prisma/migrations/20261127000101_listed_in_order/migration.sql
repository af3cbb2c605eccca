-- A page of a repository's artifacts is read from the index in its order. Of an index that holds accessories and tombstones, too, Postgres
-- thinks less than of another one with a sort, and reads all of a repository for each page.
CREATE INDEX "manifests_listed_idx" ON "artifacts"."manifests" ("repository_id", "pushed_at", "id") WHERE "subject_digest" IS NULL AND "deleted_at" IS NULL;
DROP INDEX "artifacts"."manifests_repository_id_pushed_at_id_idx";
