-- Searches pass over what hangs on other artifacts and what was deleted: in an order that holds neither, a million signatures are not in the way, and
-- a push of one writes two indexes less. Only what has a subject is looked for by it.
DROP INDEX "artifacts"."manifests_pushed_at_id_idx";
CREATE INDEX "manifests_pushed_at_id_idx" ON "artifacts"."manifests" ("pushed_at", "id") WHERE "subject_digest" IS NULL AND "deleted_at" IS NULL;
DROP INDEX "artifacts"."manifests_type_pushed_at_id_idx";
CREATE INDEX "manifests_type_pushed_at_id_idx" ON "artifacts"."manifests" ("type", "pushed_at", "id") WHERE "deleted_at" IS NULL;
DROP INDEX "artifacts"."manifests_repository_id_subject_digest_idx";
CREATE INDEX "manifests_repository_id_subject_digest_idx" ON "artifacts"."manifests" ("repository_id", "subject_digest") WHERE "subject_digest" IS NOT NULL;

-- What was deleted and pushed again was not pulled since; a search for old pulls relies on it.
UPDATE "artifacts"."manifests" SET "pulled_at" = NULL, "pulled_day" = NULL WHERE "pulled_at" < "pushed_at";
