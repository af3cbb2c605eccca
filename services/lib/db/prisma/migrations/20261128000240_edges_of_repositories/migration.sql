-- Nobody asks for edges of all repositories, and each push wrote a line of this index for each of its blobs.
DROP INDEX "artifacts"."manifest_edges_digest_idx";
