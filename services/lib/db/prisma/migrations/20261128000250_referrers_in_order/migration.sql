-- A page of referrers is read in its order: of a subject with a million, too.
DROP INDEX "artifacts"."manifests_repository_id_subject_digest_idx";
CREATE INDEX "manifests_repository_id_subject_digest_id_idx" ON "artifacts"."manifests" ("repository_id", "subject_digest", "id") WHERE "subject_digest" IS NOT NULL;
