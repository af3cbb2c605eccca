-- Whether a repository has a blob was looked up by the blob alone when the planner thought that most blobs have one link: of a config that is
-- everywhere, each HEAD and each push read all its links. With the repository behind it this index answers that as well as the primary key does.
CREATE INDEX "blob_links_blob_id_repository_id_idx" ON "artifacts"."blob_links" ("blob_id", "repository_id");
DROP INDEX "artifacts"."blob_links_blob_id_idx";
