-- A pull of `latest` of one repository was led through the `latest` of all others: where most names are unique the planner expects few of any, takes the
-- smaller index, and is right by its statistics. These two have a condition now which only those name who look for something in all repositories.
DROP INDEX "artifacts"."tags_name_idx";
CREATE INDEX "tags_name_idx" ON "artifacts"."tags" ("name") WHERE "id" > 0;
DROP INDEX "artifacts"."manifests_digest_idx";
CREATE INDEX "manifests_digest_idx" ON "artifacts"."manifests" ("digest" text_pattern_ops) WHERE "id" > 0;
