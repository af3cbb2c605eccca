-- Whether an index of the repository names a manifest is asked of every artifact that is listed, and most edges are layers and configs.
CREATE INDEX "manifest_edges_children_idx" ON "artifacts"."manifest_edges" ("repository_id", "digest") WHERE "kind" = 'child';
