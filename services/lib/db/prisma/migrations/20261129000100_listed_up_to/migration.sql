-- How many artifacts the list of a repository has, `most` at most. Where no index has children, that is what one index of Postgres has; elsewhere each
-- would have to be looked up among the children of indexes, and the parts that are counted tell it. In order: Postgres would look for the first child
-- among the edges of all repositories.
CREATE FUNCTION "artifacts"."listed_up_to"("repository" INTEGER, "most" INTEGER) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT e.digest FROM artifacts.manifest_edges e WHERE e.repository_id = repository AND e.kind = 'child'
       ORDER BY e.repository_id, e.digest LIMIT 1) IS NOT NULL THEN
    RETURN least(artifacts.total_listed(repository), most);
  END IF;
  RETURN (SELECT count(*)
            FROM (SELECT FROM artifacts.manifests m WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL
                   ORDER BY m.pushed_at, m.id LIMIT most) l);
END $$;
ALTER FUNCTION "artifacts"."listed_up_to"(INTEGER, INTEGER) SET plan_cache_mode = force_generic_plan;
