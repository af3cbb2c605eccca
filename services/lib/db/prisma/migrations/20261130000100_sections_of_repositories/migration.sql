-- Of a project of a million repositories, two thousand parts were added up for each page, and up to five hundred repositories passed over. Now a
-- hundred repositories are a part and a hundred parts a section: a page adds up sections, and passes over a hundred of each at most. Parts that were
-- counted before stay until something touches them.
CREATE UNLOGGED TABLE "artifacts"."listed_repository_sections" (
    "project_id" INTEGER NOT NULL,
    -- The first part's: from this name to the next section's.
    "from_path" TEXT COLLATE "C" NOT NULL,
    "repositories" INTEGER NOT NULL,

    CONSTRAINT "listed_repository_sections_pkey" PRIMARY KEY ("project_id", "from_path")
);

-- Adds up again the parts from this name to the next section's, and divides what has grown. Without a section, all parts.
CREATE FUNCTION "artifacts"."recount_repository_section"("project" INTEGER, "at" TEXT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  next TEXT;
BEGIN
  SELECT min(s.from_path) INTO next FROM artifacts.listed_repository_sections s WHERE s.project_id = project AND s.from_path > at COLLATE "C";
  DELETE FROM artifacts.listed_repository_sections s WHERE s.project_id = project AND s.from_path = at;
  INSERT INTO artifacts.listed_repository_sections (project_id, from_path, repositories)
  SELECT project, min(l.from_path), sum(l.repositories)
    FROM (SELECT l.from_path, l.repositories, (row_number() OVER (ORDER BY l.from_path) - 1) / 100 AS n
            FROM artifacts.listed_repository_parts l
           WHERE l.project_id = project AND l.from_path >= at COLLATE "C" AND (next IS NULL OR l.from_path < next COLLATE "C")) l
   GROUP BY n;
END $$;

-- As before, in parts of a hundred, and the section with it: no section begins behind a part and before the next.
CREATE OR REPLACE FUNCTION "artifacts"."recount_repository_part"("project" INTEGER, "at" TEXT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  next TEXT;
BEGIN
  SELECT min(l.from_path) INTO next FROM artifacts.listed_repository_parts l WHERE l.project_id = project AND l.from_path > at COLLATE "C";
  DELETE FROM artifacts.listed_repository_parts l WHERE l.project_id = project AND l.from_path = at;
  INSERT INTO artifacts.listed_repository_parts (project_id, from_path, repositories)
  SELECT project, CASE WHEN n = 0 THEN at ELSE min(l.path) END, count(*)
    FROM (SELECT r.path, (row_number() OVER (ORDER BY r.path) - 1) / 100 AS n
            FROM artifacts.repositories r
           WHERE r.project_id = project AND r.path >= at COLLATE "C" AND (next IS NULL OR r.path < next COLLATE "C")
             AND r.deleted_at IS NULL AND r.first_pushed_at IS NOT NULL) l
   GROUP BY n ORDER BY n; -- as they are read
  INSERT INTO artifacts.listed_repository_parts (project_id, from_path, repositories)
  SELECT project, '', 0 WHERE at = '' ON CONFLICT DO NOTHING;
  PERFORM artifacts.recount_repository_section(
    project,
    coalesce((SELECT s.from_path FROM artifacts.listed_repository_sections s
               WHERE s.project_id = project AND s.from_path <= at COLLATE "C" ORDER BY s.from_path DESC LIMIT 1), ''));
END $$;

-- As before: how many repositories a project lists, and behind how many (`rest`) from a name on those begin that come after so many. One statement finds
-- that, so that both are of the same moment. What was counted before there were sections is added up.
CREATE OR REPLACE FUNCTION "artifacts"."find_listed_repositories"("project" INTEGER, "skipped" BIGINT)
RETURNS TABLE ("total" BIGINT, "from_path" TEXT, "rest" BIGINT) LANGUAGE plpgsql ROWS 1 AS $$
DECLARE
  counted BOOLEAN;
  touched BOOLEAN;
  few BIGINT;
BEGIN
  SELECT (SELECT s.from_path FROM artifacts.listed_repository_sections s WHERE s.project_id = project ORDER BY s.from_path LIMIT 1) IS NOT NULL,
         (SELECT c.id FROM artifacts.repository_changes c WHERE c.project_id = project ORDER BY c.id LIMIT 1) IS NOT NULL
    INTO counted, touched;
  IF NOT counted THEN
    SELECT count(*) INTO few
      FROM (SELECT FROM artifacts.repositories r
             WHERE r.project_id = project AND r.deleted_at IS NULL AND r.first_pushed_at IS NOT NULL LIMIT 201) l;
    IF few <= 200 THEN
      RETURN QUERY SELECT few, '', skipped;
      RETURN;
    END IF;
    PERFORM artifacts.recount_listed_repositories(project);
    IF NOT EXISTS (SELECT FROM artifacts.listed_repository_parts l WHERE l.project_id = project) THEN
      PERFORM artifacts.recount_repository_part(project, '');
    ELSIF NOT EXISTS (SELECT FROM artifacts.listed_repository_sections s WHERE s.project_id = project) THEN
      PERFORM artifacts.recount_repository_section(project, '');
    END IF;
  ELSIF touched THEN
    PERFORM artifacts.recount_listed_repositories(project);
  END IF;
  IF skipped = 0 THEN
    SELECT sum(s.repositories) INTO total FROM artifacts.listed_repository_sections s WHERE s.project_id = project;
    from_path := '';
    rest := 0;
    RETURN NEXT;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT s.total::bigint, l.from_path, (skipped - s.before - l.before)::bigint
    FROM (SELECT s.* FROM (SELECT s.from_path, sum(s.repositories) OVER (ORDER BY s.from_path) - s.repositories AS before,
                                  sum(s.repositories) OVER () AS total
                             FROM artifacts.listed_repository_sections s WHERE s.project_id = project) s
           WHERE s.before <= skipped ORDER BY s.from_path DESC LIMIT 1) s,
         LATERAL (SELECT l.from_path, sum(l.repositories) OVER (ORDER BY l.from_path) - l.repositories AS before
                    FROM (SELECT l.* FROM artifacts.listed_repository_parts l
                           WHERE l.project_id = project AND l.from_path >= s.from_path ORDER BY l.from_path LIMIT 100) l) l
   WHERE s.before + l.before <= skipped ORDER BY l.from_path DESC LIMIT 1;
END $$;

-- A page of the repositories that these projects list, one project after the other and each by name, and how many there are.
CREATE FUNCTION "artifacts"."page_listed_repositories"("projects" INTEGER[], "skipped" BIGINT, "size" BIGINT, OUT "total" BIGINT, OUT "ids" INTEGER[])
LANGUAGE plpgsql AS $$
DECLARE
  project INTEGER;
  found RECORD;
BEGIN
  total := 0;
  ids := '{}';
  FOREACH project IN ARRAY projects LOOP
    SELECT f.* INTO found FROM artifacts.find_listed_repositories(project, greatest(skipped - total, 0)) f;
    IF cardinality(ids) < size AND found.total > skipped - total THEN
      ids := ids || ARRAY(SELECT r.id FROM artifacts.repositories r
                           WHERE r.project_id = project AND r.path >= found.from_path AND r.deleted_at IS NULL AND r.first_pushed_at IS NOT NULL
                           ORDER BY r.path OFFSET found.rest LIMIT size - cardinality(ids));
    END IF;
    total := total + found.total;
  END LOOP;
END $$;

-- Whatever rewrites a part rewrites its section.
CREATE OR REPLACE FUNCTION "artifacts"."listed_repositories_stamp"("project" INTEGER) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM artifacts.find_listed_repositories(project, 0);
  RETURN (SELECT md5(string_agg(s.xmin::text || s.ctid::text, ' ' ORDER BY s.from_path))
            FROM artifacts.listed_repository_sections s WHERE s.project_id = project);
END $$;

-- As before, but few artifacts are counted by one statement of it.
CREATE OR REPLACE FUNCTION "artifacts"."total_listed"("repository" INTEGER) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  few BIGINT;
BEGIN
  SELECT (SELECT count(*) FROM (SELECT FROM artifacts.listed_between(repository, '-infinity', 0, 'infinity', 0) LIMIT 201) l) INTO few
   WHERE (SELECT l.from_id FROM artifacts.listed_parts l WHERE l.repository_id = repository ORDER BY l.from_at, l.from_id LIMIT 1) IS NULL;
  IF few <= 200 THEN
    RETURN few;
  END IF;
  RETURN coalesce(artifacts.settle_listed(repository), (SELECT sum(l.artifacts) FROM artifacts.listed_parts l WHERE l.repository_id = repository));
END $$;

-- Planned for the part that they count: a plan for any part reads to the end of the project. Who calls them asks for such plans.
ALTER FUNCTION "artifacts"."recount_repository_section"(INTEGER, TEXT) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION "artifacts"."recount_repository_part"(INTEGER, TEXT) SET plan_cache_mode = force_custom_plan;
-- As 20261128000400 says; CREATE OR REPLACE forgets it.
ALTER FUNCTION "artifacts"."find_listed_repositories"(INTEGER, BIGINT) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."page_listed_repositories"(INTEGER[], BIGINT, BIGINT) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."listed_repositories_stamp"(INTEGER) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."total_listed"(INTEGER) SET plan_cache_mode = force_generic_plan;
