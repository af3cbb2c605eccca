-- Another text when a project lists other repositories than before, or under other names: whatever does that rewrites a part. Null for the few of a
-- project that is not counted by parts.
CREATE FUNCTION "artifacts"."listed_repositories_stamp"("project" INTEGER) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM artifacts.find_listed_repositories(project, 0);
  RETURN (SELECT md5(string_agg(l.xmin::text || l.ctid::text, ' ' ORDER BY l.from_path))
            FROM artifacts.listed_repository_parts l WHERE l.project_id = project);
END $$;
ALTER FUNCTION "artifacts"."listed_repositories_stamp"(INTEGER) SET plan_cache_mode = force_generic_plan;
