-- Repositories of a project by when they were made and changed. Only a push that makes a repository writes to these.
CREATE INDEX "repositories_created_idx" ON "artifacts"."repositories" ("project_id", "created_at", "id") WHERE "deleted_at" IS NULL AND "first_pushed_at" IS NOT NULL;
CREATE INDEX "repositories_updated_idx" ON "artifacts"."repositories" ("project_id", "updated_at", "id") WHERE "deleted_at" IS NULL AND "first_pushed_at" IS NOT NULL;
