-- Lists of robots are of one project or of the system, by name.
CREATE INDEX "robots_project_id_name_idx" ON "identity"."robots"("project_id", "name");
DROP INDEX "identity"."robots_project_id_idx";
