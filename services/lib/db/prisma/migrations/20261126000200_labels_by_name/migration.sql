-- One label of a name in the installation, and one in each project. A deleted one leaves its name free.
DROP INDEX "projects"."labels_project_id_name_idx";
CREATE UNIQUE INDEX "labels_project_id_name_key" ON "projects"."labels" ("project_id", "name") WHERE "deleted_at" IS NULL;
