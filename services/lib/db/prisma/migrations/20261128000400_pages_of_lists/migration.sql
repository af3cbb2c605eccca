-- Artifacts that have a tag are counted by part, too, so that a list of those, one of the others, one of a time and one from its end on is found
-- as the whole list is. What was counted before is counted anew.
TRUNCATE "artifacts"."listed_parts", "artifacts"."listing_changes";
ALTER TABLE "artifacts"."listed_parts" ADD COLUMN "tagged" INTEGER NOT NULL;

-- What is counted leaves dead rows, which the next reader passes over.
ALTER TABLE "artifacts"."listing_changes" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE "artifacts"."repository_changes" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

DROP FUNCTION "artifacts"."listed_between"(INTEGER, TIMESTAMPTZ, BIGINT, TIMESTAMPTZ, BIGINT);
CREATE FUNCTION "artifacts"."listed_between"("repository" INTEGER, "from_at" TIMESTAMPTZ, "from_id" BIGINT, "to_at" TIMESTAMPTZ, "to_id" BIGINT)
RETURNS TABLE ("pushed_at" TIMESTAMPTZ, "id" BIGINT, "tagged" BOOLEAN) LANGUAGE sql STABLE AS $$
  SELECT m.pushed_at, m.id, t.tagged
    FROM artifacts.manifests m, LATERAL (SELECT EXISTS (SELECT FROM artifacts.tags t WHERE t.manifest_id = m.id OFFSET 0) AS tagged) t
   WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL
     AND (m.pushed_at, m.id) >= (from_at, from_id) AND (m.pushed_at, m.id) < (to_at, to_id)
     AND (t.tagged OR NOT EXISTS (SELECT FROM artifacts.manifest_edges e
                                    JOIN artifacts.manifests i ON i.id = e.manifest_id AND i.deleted_at IS NULL
                                   WHERE e.repository_id = m.repository_id AND e.digest = m.digest AND e.kind = 'child' OFFSET 0))
$$;

CREATE OR REPLACE FUNCTION "artifacts"."recount_part"("repository" INTEGER, "at" TIMESTAMPTZ, "at_id" BIGINT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  next_at TIMESTAMPTZ := 'infinity';
  next_id BIGINT := 0;
BEGIN
  SELECT l.from_at, l.from_id INTO next_at, next_id FROM artifacts.listed_parts l
   WHERE l.repository_id = repository AND (l.from_at, l.from_id) > (at, at_id) ORDER BY l.from_at, l.from_id LIMIT 1;
  DELETE FROM artifacts.listed_parts l WHERE l.repository_id = repository AND l.from_at = at AND l.from_id = at_id;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged)
  SELECT repository, CASE WHEN n = 0 THEN at ELSE min(r.pushed_at) END, CASE WHEN n = 0 THEN at_id ELSE min(r.id) FILTER (WHERE r.place = 0) END,
         count(r.id), count(r.id) FILTER (WHERE r.tagged)
    FROM (SELECT l.pushed_at, l.id, l.tagged, (row_number() OVER listed - 1) / 500 AS n, (row_number() OVER listed - 1) % 500 AS place
            FROM artifacts.listed_between(repository, at, at_id, coalesce(next_at, 'infinity'), coalesce(next_id, 0)) l
          WINDOW listed AS (ORDER BY l.pushed_at, l.id)) r
   GROUP BY n
  HAVING count(r.id) > 0;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged)
  SELECT repository, '-infinity', 0, 0, 0 WHERE at = '-infinity' ON CONFLICT DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION "artifacts"."count_listed"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM artifacts.recount_listed(repository);
  IF EXISTS (SELECT FROM artifacts.listed_parts l WHERE l.repository_id = repository) THEN
    RETURN;
  END IF;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged)
  SELECT repository, CASE WHEN n = 0 THEN '-infinity' ELSE min(r.pushed_at) END, CASE WHEN n = 0 THEN 0 ELSE min(r.id) FILTER (WHERE r.place = 0) END,
         count(*), count(*) FILTER (WHERE r.tagged)
    FROM (SELECT l.pushed_at, l.id, l.tagged, (row_number() OVER listed - 1) / 500 AS n, (row_number() OVER listed - 1) % 500 AS place
            FROM (SELECT m.pushed_at, m.id, m.digest, t.manifest_id IS NOT NULL AS tagged
                    FROM artifacts.manifests m
                    LEFT JOIN (SELECT DISTINCT t.manifest_id FROM artifacts.tags t WHERE t.repository_id = repository) t ON t.manifest_id = m.id
                   WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL) l
            LEFT JOIN (SELECT DISTINCT e.digest FROM artifacts.manifest_edges e
                         JOIN artifacts.manifests i ON i.id = e.manifest_id AND i.deleted_at IS NULL
                        WHERE e.repository_id = repository AND e.kind = 'child') c ON c.digest = l.digest
           WHERE l.tagged OR c.digest IS NULL
          WINDOW listed AS (ORDER BY l.pushed_at, l.id)) r
   GROUP BY n;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged) VALUES (repository, '-infinity', 0, 0, 0) ON CONFLICT DO NOTHING;
END $$;

-- Counts what has to be counted again. Tells how many there are of a repository of few artifacts, which have no parts; null of others. The first
-- part and the oldest change are looked for by their index: without an order, all rows are read where most belong to one repository or are dead.
CREATE FUNCTION "artifacts"."settle_listed"("repository" INTEGER) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  few BIGINT;
BEGIN
  IF (SELECT l.from_id FROM artifacts.listed_parts l WHERE l.repository_id = repository ORDER BY l.from_at, l.from_id LIMIT 1) IS NOT NULL THEN
    IF (SELECT c.id FROM artifacts.listing_changes c WHERE c.repository_id = repository ORDER BY c.id LIMIT 1) IS NOT NULL THEN
      PERFORM artifacts.recount_listed(repository);
    END IF;
    RETURN NULL;
  END IF;
  SELECT count(*) INTO few FROM (SELECT FROM artifacts.listed_between(repository, '-infinity', 0, 'infinity', 0) LIMIT 201) l;
  IF few <= 200 THEN
    RETURN few;
  END IF;
  PERFORM artifacts.count_listed(repository);
  RETURN NULL;
END $$;

-- How many artifacts a repository lists.
CREATE FUNCTION "artifacts"."total_listed"("repository" INTEGER) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  RETURN coalesce(artifacts.settle_listed(repository), (SELECT sum(l.artifacts) FROM artifacts.listed_parts l WHERE l.repository_id = repository));
END $$;

-- How many of a repository that is counted were pushed before a time: all (`wanted` null), those that have a tag, or those that have none.
CREATE FUNCTION "artifacts"."listed_before"("repository" INTEGER, "wanted" BOOLEAN, "until" TIMESTAMPTZ) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  counted BIGINT;
  next_at TIMESTAMPTZ;
  next_id BIGINT;
BEGIN
  SELECT coalesce(sum(CASE wanted WHEN true THEN l.tagged WHEN false THEN l.artifacts - l.tagged ELSE l.artifacts END), 0) INTO counted
    FROM artifacts.listed_parts l WHERE l.repository_id = repository AND l.from_at < until;
  IF until = 'infinity' THEN
    RETURN counted;
  END IF;
  SELECT l.from_at, l.from_id INTO next_at, next_id FROM artifacts.listed_parts l
   WHERE l.repository_id = repository AND l.from_at >= until ORDER BY l.from_at, l.from_id LIMIT 1;
  -- The last of these parts goes on behind the time.
  RETURN counted - (SELECT count(*) FROM artifacts.listed_between(repository, until, 0, coalesce(next_at, 'infinity'), coalesce(next_id, 0)) l
                     WHERE wanted IS NULL OR l.tagged = wanted);
END $$;

-- A page of the list of a repository by the time of push, and how many there are: of all, of those that have a tag or none, of what was pushed
-- from a time until before another.
CREATE FUNCTION "artifacts"."page_listed"(
  "repository" INTEGER, "skipped" BIGINT, "size" BIGINT, "oldest_first" BOOLEAN, "wanted" BOOLEAN, "since" TIMESTAMPTZ, "until" TIMESTAMPTZ,
  OUT "total" BIGINT, OUT "ids" BIGINT[]) LANGUAGE plpgsql AS $$
DECLARE
  listed BIGINT;
  older BIGINT := 0;
  up_to BIGINT;
  shown BIGINT;
  newer BIGINT;
  part RECORD;
  to_at TIMESTAMPTZ := 'infinity';
  to_id BIGINT := 0;
BEGIN
  ids := '{}';
  IF artifacts.settle_listed(repository) IS NOT NULL THEN
    SELECT array_agg(l.id ORDER BY l.pushed_at DESC, l.id DESC) INTO ids
      FROM artifacts.listed_between(repository, since, 0, until, 0) l WHERE wanted IS NULL OR l.tagged = wanted;
    total := coalesce(cardinality(ids), 0);
    IF oldest_first THEN
      ids := ARRAY(SELECT u.id FROM unnest(ids) WITH ORDINALITY u (id, place) ORDER BY u.place DESC);
    END IF;
    ids := coalesce(ids[skipped + 1 : skipped + size], '{}');
    RETURN;
  END IF;
  listed := artifacts.listed_before(repository, wanted, 'infinity');
  IF since > '-infinity' THEN
    older := artifacts.listed_before(repository, wanted, since);
  END IF;
  up_to := CASE WHEN until = 'infinity' THEN listed ELSE artifacts.listed_before(repository, wanted, until) END;
  total := greatest(up_to - older, 0);
  shown := least(size, total - skipped);
  newer := CASE WHEN oldest_first THEN listed - older - skipped - shown ELSE listed - up_to + skipped END;
  IF shown <= 0 THEN
    RETURN;
  END IF;
  FOR part IN
    SELECT l.from_at, l.from_id, CASE wanted WHEN true THEN l.tagged WHEN false THEN l.artifacts - l.tagged ELSE l.artifacts END AS artifacts
      FROM artifacts.listed_parts l WHERE l.repository_id = repository ORDER BY l.from_at DESC, l.from_id DESC
  LOOP
    IF newer >= part.artifacts THEN
      newer := newer - part.artifacts;
    ELSE
      ids := ids || ARRAY(SELECT l.id FROM artifacts.listed_between(repository, part.from_at, part.from_id, to_at, to_id) l
                           WHERE wanted IS NULL OR l.tagged = wanted
                           ORDER BY l.pushed_at DESC, l.id DESC OFFSET newer LIMIT shown - cardinality(ids));
      newer := 0;
      EXIT WHEN cardinality(ids) >= shown;
    END IF;
    to_at := part.from_at;
    to_id := part.from_id;
  END LOOP;
  IF oldest_first THEN
    ids := ARRAY(SELECT u.id FROM unnest(ids) WITH ORDINALITY u (id, place) ORDER BY u.place DESC);
  END IF;
END $$;

-- As before, but changes are looked for as in settle_listed, and parts are passed over one by one.
CREATE OR REPLACE FUNCTION "artifacts"."find_listed_repositories"("project" INTEGER, "skipped" BIGINT)
RETURNS TABLE ("total" BIGINT, "from_path" TEXT, "rest" BIGINT) LANGUAGE plpgsql AS $$
DECLARE
  few BIGINT;
BEGIN
  IF (SELECT l.from_path FROM artifacts.listed_repository_parts l WHERE l.project_id = project ORDER BY l.from_path LIMIT 1) IS NULL THEN
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
  ELSIF (SELECT c.id FROM artifacts.repository_changes c WHERE c.project_id = project ORDER BY c.id LIMIT 1) IS NOT NULL THEN
    PERFORM artifacts.recount_listed_repositories(project);
  END IF;
  SELECT sum(l.repositories) INTO total FROM artifacts.listed_repository_parts l WHERE l.project_id = project;
  rest := skipped;
  FOR from_path, few IN
    SELECT l.from_path, l.repositories FROM artifacts.listed_repository_parts l WHERE l.project_id = project ORDER BY l.from_path
  LOOP
    EXIT WHEN rest < few;
    rest := rest - few;
  END LOOP;
  RETURN NEXT;
END $$;

-- One plan serves all repositories, by their index. Beside a very large one, Postgres takes it for dear and plans anew at each call, which costs more
-- than the call. What counts a whole repository is planned for its size.
ALTER FUNCTION "artifacts"."settle_listed"(INTEGER) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."page_listed"(INTEGER, BIGINT, BIGINT, BOOLEAN, BOOLEAN, TIMESTAMPTZ, TIMESTAMPTZ) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."find_listed_repositories"(INTEGER, BIGINT) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION "artifacts"."count_listed"(INTEGER) SET plan_cache_mode = force_custom_plan;

SELECT artifacts.count_listed(m.repository_id) FROM (SELECT repository_id FROM artifacts.manifests GROUP BY 1 HAVING count(*) > 10000) m;
