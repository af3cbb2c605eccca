-- How many artifacts a repository lists, and where in its list any page begins, without counting them. Whether one is listed depends on rows
-- of three tables (itself, its tags, the indexes that name it), which transactions change side by side; no counter could be kept right without
-- making them wait for each other. So writers only say what they touched, and who wants to know counts the touched parts again.
--
-- Unlogged: what a crash or a failover empties is counted anew by the next reader, and a push writes no log for it. Both are emptied together.
CREATE UNLOGGED TABLE "artifacts"."listed_parts" (
    "repository_id" INTEGER NOT NULL,
    -- From this artifact in the order of pushes to the next part's; one of the list, or before all of them.
    "from_at" TIMESTAMPTZ(3) NOT NULL,
    "from_id" BIGINT NOT NULL,
    "artifacts" INTEGER NOT NULL,

    CONSTRAINT "listed_parts_pkey" PRIMARY KEY ("repository_id", "from_at", "from_id")
);

-- An artifact that may have entered or left its repository's list, by its id or its digest; with a time: it was listed there until now.
CREATE UNLOGGED TABLE "artifacts"."listing_changes" (
    "repository_id" INTEGER NOT NULL,
    "id" BIGINT GENERATED ALWAYS AS IDENTITY,
    "manifest_id" BIGINT,
    "digest" TEXT,
    "pushed_at" TIMESTAMPTZ(3),

    CONSTRAINT "listing_changes_pkey" PRIMARY KEY ("repository_id", "id")
);

CREATE FUNCTION "artifacts"."manifest_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id, pushed_at) VALUES (OLD.repository_id, OLD.id, OLD.pushed_at);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id) VALUES (NEW.repository_id, NEW.id);
  END IF;
  -- What a deleted index names, and what one that came back names.
  IF TG_OP = 'UPDATE' AND NEW.kind = 'index' THEN
    INSERT INTO artifacts.listing_changes (repository_id, digest)
    SELECT e.repository_id, e.digest FROM artifacts.manifest_edges e WHERE e.manifest_id = NEW.id AND e.kind = 'child';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "listing_inserted" AFTER INSERT ON "artifacts"."manifests"
  FOR EACH ROW WHEN (NEW.subject_digest IS NULL) EXECUTE FUNCTION "artifacts"."manifest_touched"();
CREATE TRIGGER "listing_updated" AFTER UPDATE OF "deleted_at", "subject_digest", "pushed_at" ON "artifacts"."manifests"
  FOR EACH ROW WHEN ((OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL) OR (OLD.subject_digest IS NULL) <> (NEW.subject_digest IS NULL)
                     OR OLD.pushed_at <> NEW.pushed_at)
  EXECUTE FUNCTION "artifacts"."manifest_touched"();
CREATE TRIGGER "listing_removed" AFTER DELETE ON "artifacts"."manifests"
  FOR EACH ROW WHEN (OLD.deleted_at IS NULL) EXECUTE FUNCTION "artifacts"."manifest_touched"();

CREATE FUNCTION "artifacts"."child_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- By digest: the child may be in a transaction that this one does not see.
  IF TG_OP = 'INSERT' THEN
    INSERT INTO artifacts.listing_changes (repository_id, digest) VALUES (NEW.repository_id, NEW.digest);
  ELSE
    INSERT INTO artifacts.listing_changes (repository_id, digest) VALUES (OLD.repository_id, OLD.digest);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "listing_child_named" AFTER INSERT ON "artifacts"."manifest_edges"
  FOR EACH ROW WHEN (NEW.kind = 'child') EXECUTE FUNCTION "artifacts"."child_touched"();
CREATE TRIGGER "listing_child_left" AFTER DELETE ON "artifacts"."manifest_edges"
  FOR EACH ROW WHEN (OLD.kind = 'child') EXECUTE FUNCTION "artifacts"."child_touched"();

-- A tag lists the child of an index. Whether it is one, the transaction that tags it need not see.
CREATE FUNCTION "artifacts"."tag_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id) VALUES (OLD.repository_id, OLD.manifest_id);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id) VALUES (NEW.repository_id, NEW.manifest_id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "listing_tagged" AFTER INSERT OR DELETE ON "artifacts"."tags" FOR EACH ROW EXECUTE FUNCTION "artifacts"."tag_touched"();
CREATE TRIGGER "listing_tag_moved" AFTER UPDATE OF "manifest_id" ON "artifacts"."tags"
  FOR EACH ROW WHEN (OLD.manifest_id <> NEW.manifest_id) EXECUTE FUNCTION "artifacts"."tag_touched"();

-- The artifacts that a repository lists, of what lies between two places in the order of pushes. The conditions of artifact-rows.ts; `offset 0`
-- as there.
CREATE FUNCTION "artifacts"."listed_between"("repository" INTEGER, "from_at" TIMESTAMPTZ, "from_id" BIGINT, "to_at" TIMESTAMPTZ, "to_id" BIGINT)
RETURNS TABLE ("pushed_at" TIMESTAMPTZ, "id" BIGINT) LANGUAGE sql STABLE AS $$
  SELECT m.pushed_at, m.id
    FROM artifacts.manifests m
   WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL
     AND (m.pushed_at, m.id) >= (from_at, from_id) AND (m.pushed_at, m.id) < (to_at, to_id)
     AND (NOT EXISTS (SELECT FROM artifacts.manifest_edges e
                        JOIN artifacts.manifests i ON i.id = e.manifest_id AND i.deleted_at IS NULL
                       WHERE e.repository_id = m.repository_id AND e.digest = m.digest AND e.kind = 'child' OFFSET 0)
          OR EXISTS (SELECT FROM artifacts.tags t WHERE t.manifest_id = m.id OFFSET 0))
$$;

-- Counts again what was touched in a repository. Every statement sees what was committed before it began, so what is counted below holds all
-- that the forgotten changes speak of; what is committed in between leaves its own.
CREATE FUNCTION "artifacts"."recount_listed"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  ids BIGINT[];
  digests TEXT[];
  times TIMESTAMPTZ[];
  time_ids BIGINT[];
  part RECORD;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('artifacts.listed_parts'), repository);
  WITH gone AS (DELETE FROM artifacts.listing_changes c WHERE c.repository_id = repository RETURNING c.*)
  SELECT array_agg(DISTINCT g.manifest_id) FILTER (WHERE g.pushed_at IS NULL), array_agg(DISTINCT g.digest),
         array_agg(g.pushed_at) FILTER (WHERE g.pushed_at IS NOT NULL), array_agg(g.manifest_id) FILTER (WHERE g.pushed_at IS NOT NULL)
    INTO ids, digests, times, time_ids FROM gone g;
  FOR part IN
    SELECT DISTINCT p.from_at, p.from_id
      FROM (SELECT m.pushed_at, m.id FROM artifacts.manifests m WHERE m.id = ANY (ids) AND m.repository_id = repository
            UNION SELECT m.pushed_at, m.id FROM artifacts.manifests m WHERE m.repository_id = repository AND m.digest = ANY (digests)
            UNION SELECT * FROM unnest(times, time_ids)) AS touched (pushed_at, id),
           LATERAL (SELECT l.from_at, l.from_id FROM artifacts.listed_parts l
                     WHERE l.repository_id = repository AND (l.from_at, l.from_id) <= (touched.pushed_at, touched.id)
                     ORDER BY l.from_at DESC, l.from_id DESC LIMIT 1) p
  LOOP
    PERFORM artifacts.recount_part(repository, part.from_at, part.from_id);
  END LOOP;
END $$;

-- Counts one part again, in parts of five hundred. The first of all stays although it is empty: that it is there says that the repository is counted.
CREATE FUNCTION "artifacts"."recount_part"("repository" INTEGER, "at" TIMESTAMPTZ, "at_id" BIGINT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  next_at TIMESTAMPTZ := 'infinity';
  next_id BIGINT := 0;
BEGIN
  SELECT l.from_at, l.from_id INTO next_at, next_id FROM artifacts.listed_parts l
   WHERE l.repository_id = repository AND (l.from_at, l.from_id) > (at, at_id) ORDER BY l.from_at, l.from_id LIMIT 1;
  DELETE FROM artifacts.listed_parts l WHERE l.repository_id = repository AND l.from_at = at AND l.from_id = at_id;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts)
  SELECT repository, CASE WHEN n = 0 THEN at ELSE min(r.pushed_at) END, CASE WHEN n = 0 THEN at_id ELSE min(r.id) FILTER (WHERE r.place = 0) END,
         count(r.id)
    FROM (SELECT l.pushed_at, l.id, (row_number() OVER listed - 1) / 500 AS n, (row_number() OVER listed - 1) % 500 AS place
            FROM artifacts.listed_between(repository, at, at_id, coalesce(next_at, 'infinity'), coalesce(next_id, 0)) l
          WINDOW listed AS (ORDER BY l.pushed_at, l.id)) r
   GROUP BY n
  HAVING count(r.id) > 0;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts)
  SELECT repository, '-infinity', 0, 0 WHERE at = '-infinity' ON CONFLICT DO NOTHING;
END $$;

-- How many artifacts a repository lists, and where what comes after so many of them begins, the last push first: behind `rest` artifacts of
-- those before a place; without a place: of all. Few are counted on the spot.
CREATE FUNCTION "artifacts"."find_listed"("repository" INTEGER, "skipped" BIGINT)
RETURNS TABLE ("total" BIGINT, "before_at" TIMESTAMPTZ, "before_id" BIGINT, "rest" BIGINT) LANGUAGE plpgsql AS $$
DECLARE
  few BIGINT;
BEGIN
  IF NOT EXISTS (SELECT FROM artifacts.listed_parts l WHERE l.repository_id = repository) THEN
    SELECT count(*) INTO few FROM (SELECT FROM artifacts.listed_between(repository, '-infinity', 0, 'infinity', 0) LIMIT 201) l;
    IF few <= 200 THEN
      RETURN QUERY SELECT few, NULL::timestamptz, NULL::bigint, skipped;
      RETURN;
    END IF;
    PERFORM artifacts.count_listed(repository);
  ELSIF EXISTS (SELECT FROM artifacts.listing_changes c WHERE c.repository_id = repository) THEN
    PERFORM artifacts.recount_listed(repository);
  END IF;
  RETURN QUERY
  WITH parts AS (
    SELECT l.artifacts, sum(l.artifacts) OVER newest - l.artifacts AS newer, lag(l.from_at) OVER newest AS next_at, lag(l.from_id) OVER newest AS next_id
      FROM artifacts.listed_parts l WHERE l.repository_id = repository
    WINDOW newest AS (ORDER BY l.from_at DESC, l.from_id DESC))
  SELECT a.total::bigint, p.next_at, p.next_id, (skipped - p.newer)::bigint
    FROM (SELECT sum(parts.artifacts) AS total FROM parts) a
    LEFT JOIN parts p ON p.newer <= skipped AND skipped < p.newer + p.artifacts;
END $$;

-- Counts a repository for the first time, if nobody did meanwhile: all at once, so the children and the tags are read as a whole.
CREATE FUNCTION "artifacts"."count_listed"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM artifacts.recount_listed(repository);
  IF EXISTS (SELECT FROM artifacts.listed_parts l WHERE l.repository_id = repository) THEN
    RETURN;
  END IF;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts)
  SELECT repository, CASE WHEN n = 0 THEN '-infinity' ELSE min(r.pushed_at) END, CASE WHEN n = 0 THEN 0 ELSE min(r.id) FILTER (WHERE r.place = 0) END,
         count(*)
    FROM (SELECT m.pushed_at, m.id, (row_number() OVER listed - 1) / 500 AS n, (row_number() OVER listed - 1) % 500 AS place
            FROM artifacts.manifests m
           WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL
             AND (m.digest NOT IN (SELECT e.digest FROM artifacts.manifest_edges e
                                     JOIN artifacts.manifests i ON i.id = e.manifest_id AND i.deleted_at IS NULL
                                    WHERE e.repository_id = repository AND e.kind = 'child')
                  OR EXISTS (SELECT FROM artifacts.tags t WHERE t.manifest_id = m.id OFFSET 0))
          WINDOW listed AS (ORDER BY m.pushed_at, m.id)) r
   GROUP BY n;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts) VALUES (repository, '-infinity', 0, 0) ON CONFLICT DO NOTHING;
END $$;

SELECT artifacts.count_listed(m.repository_id) FROM (SELECT repository_id FROM artifacts.manifests GROUP BY 1 HAVING count(*) > 10000) m;
