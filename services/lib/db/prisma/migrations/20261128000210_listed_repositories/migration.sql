-- As for the artifacts of a repository (20261128000200): how many repositories a project lists, and where in the order of their names any page begins.
CREATE UNLOGGED TABLE "artifacts"."listed_repository_parts" (
    "project_id" INTEGER NOT NULL,
    -- From this name to the next part's; the first begins with the empty one.
    "from_path" TEXT COLLATE "C" NOT NULL,
    "repositories" INTEGER NOT NULL,

    CONSTRAINT "listed_repository_parts_pkey" PRIMARY KEY ("project_id", "from_path")
);

-- A repository that entered or left its project's list.
CREATE UNLOGGED TABLE "artifacts"."repository_changes" (
    "project_id" INTEGER NOT NULL,
    "id" BIGINT GENERATED ALWAYS AS IDENTITY,
    "path" TEXT COLLATE "C" NOT NULL,

    CONSTRAINT "repository_changes_pkey" PRIMARY KEY ("project_id", "id")
);

CREATE FUNCTION "artifacts"."repository_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO artifacts.repository_changes (project_id, path) VALUES (OLD.project_id, OLD.path);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO artifacts.repository_changes (project_id, path) VALUES (NEW.project_id, NEW.path);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "listing_inserted" AFTER INSERT ON "artifacts"."repositories"
  FOR EACH ROW WHEN (NEW.first_pushed_at IS NOT NULL) EXECUTE FUNCTION "artifacts"."repository_touched"();
CREATE TRIGGER "listing_updated" AFTER UPDATE OF "project_id", "path", "first_pushed_at", "deleted_at" ON "artifacts"."repositories"
  FOR EACH ROW WHEN ((OLD.first_pushed_at IS NULL) <> (NEW.first_pushed_at IS NULL) OR (OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL)
                     OR OLD.path <> NEW.path OR OLD.project_id <> NEW.project_id)
  EXECUTE FUNCTION "artifacts"."repository_touched"();
CREATE TRIGGER "listing_removed" AFTER DELETE ON "artifacts"."repositories"
  FOR EACH ROW EXECUTE FUNCTION "artifacts"."repository_touched"();

-- Counts again what was touched in a project.
CREATE FUNCTION "artifacts"."recount_listed_repositories"("project" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  touched TEXT[];
  part TEXT;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('artifacts.listed_repository_parts'), project);
  WITH gone AS (DELETE FROM artifacts.repository_changes c WHERE c.project_id = project RETURNING c.path)
  SELECT array_agg(g.path) INTO touched FROM gone g;
  FOR part IN
    SELECT DISTINCT p.from_path
      FROM unnest(touched) AS t (path),
           LATERAL (SELECT l.from_path FROM artifacts.listed_repository_parts l
                     WHERE l.project_id = project AND l.from_path <= t.path COLLATE "C" ORDER BY l.from_path DESC LIMIT 1) p
  LOOP
    PERFORM artifacts.recount_repository_part(project, part);
  END LOOP;
END $$;

-- As recount_part.
CREATE FUNCTION "artifacts"."recount_repository_part"("project" INTEGER, "at" TEXT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  next TEXT;
BEGIN
  SELECT min(l.from_path) INTO next FROM artifacts.listed_repository_parts l WHERE l.project_id = project AND l.from_path > at COLLATE "C";
  DELETE FROM artifacts.listed_repository_parts l WHERE l.project_id = project AND l.from_path = at;
  INSERT INTO artifacts.listed_repository_parts (project_id, from_path, repositories)
  SELECT project, CASE WHEN n = 0 THEN at ELSE min(l.path) END, count(*)
    FROM (SELECT r.path, (row_number() OVER (ORDER BY r.path) - 1) / 500 AS n
            FROM artifacts.repositories r
           WHERE r.project_id = project AND r.path >= at COLLATE "C" AND (next IS NULL OR r.path < next COLLATE "C")
             AND r.deleted_at IS NULL AND r.first_pushed_at IS NOT NULL) l
   GROUP BY n;
  INSERT INTO artifacts.listed_repository_parts (project_id, from_path, repositories)
  SELECT project, '', 0 WHERE at = '' ON CONFLICT DO NOTHING;
END $$;

-- How many repositories a project lists, and where what comes after so many of them begins: behind `rest` of those from a name on. Few are counted
-- on the spot.
CREATE FUNCTION "artifacts"."find_listed_repositories"("project" INTEGER, "skipped" BIGINT)
RETURNS TABLE ("total" BIGINT, "from_path" TEXT, "rest" BIGINT) LANGUAGE plpgsql AS $$
DECLARE
  few BIGINT;
BEGIN
  IF NOT EXISTS (SELECT FROM artifacts.listed_repository_parts l WHERE l.project_id = project) THEN
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
    END IF;
  ELSIF EXISTS (SELECT FROM artifacts.repository_changes c WHERE c.project_id = project) THEN
    PERFORM artifacts.recount_listed_repositories(project);
  END IF;
  RETURN QUERY
  WITH parts AS (
    SELECT l.from_path, l.repositories, sum(l.repositories) OVER (ORDER BY l.from_path) - l.repositories AS before
      FROM artifacts.listed_repository_parts l WHERE l.project_id = project)
  SELECT a.total::bigint, p.from_path, (skipped - p.before)::bigint
    FROM (SELECT sum(parts.repositories) AS total FROM parts) a
    LEFT JOIN parts p ON p.before <= skipped AND skipped < p.before + p.repositories;
END $$;
