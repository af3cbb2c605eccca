-- Processes remember long lists of artifacts, whatever was asked for and in whichever order, and bring them up to date by what was touched since.
-- A change says in which transaction it was made, so that whoever asks again is told what it did not see, in whatever order transactions end.
ALTER TABLE "artifacts"."listing_changes" ADD COLUMN "transaction_id" BIGINT NOT NULL DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX "listing_changes_transaction_id_idx" ON "artifacts"."listing_changes" ("transaction_id");

-- Changes that were counted, and those that count for nothing but lists that are remembered. Neither a manifest nor a digest: all of the repository.
CREATE UNLOGGED TABLE "artifacts"."listing_log" (
    "transaction_id" BIGINT NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    "id" BIGINT GENERATED ALWAYS AS IDENTITY,
    "repository_id" INTEGER NOT NULL,
    "manifest_id" BIGINT,
    "digest" TEXT,

    CONSTRAINT "listing_log_pkey" PRIMARY KEY ("transaction_id", "id")
);
ALTER TABLE "artifacts"."listing_log" SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- One row. A crash or a failover empties it with the changes: then another salt says that nothing remembered counts. Of transactions before
-- `forgotten_until` changes are missing.
CREATE UNLOGGED TABLE "artifacts"."listing_epoch" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "salt" INTEGER NOT NULL DEFAULT (random() * 2147483647)::int,
    "forgotten_until" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "listing_epoch_pkey" PRIMARY KEY ("id")
);

-- A label that is deleted leaves everything that had it: from a thousand on, the repositories are noted and not each artifact.
CREATE FUNCTION "artifacts"."labels_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM (SELECT FROM changed LIMIT 1001) c) > 1000 THEN
    INSERT INTO artifacts.listing_log (repository_id)
    SELECT DISTINCT m.repository_id FROM changed c JOIN artifacts.manifests m ON m.id = c.manifest_id;
  ELSE
    INSERT INTO artifacts.listing_log (repository_id, manifest_id)
    SELECT m.repository_id, m.id FROM (SELECT DISTINCT c.manifest_id FROM changed c) c JOIN artifacts.manifests m ON m.id = c.manifest_id;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "labelled" AFTER INSERT ON "artifacts"."artifact_labels"
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "artifacts"."labels_touched"();
CREATE TRIGGER "unlabelled" AFTER DELETE ON "artifacts"."artifact_labels"
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION "artifacts"."labels_touched"();

CREATE FUNCTION "artifacts"."whole_repository_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO artifacts.listing_log (repository_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER "listing_moved" AFTER UPDATE OF "project_id", "path", "deleted_at" ON "artifacts"."repositories"
  FOR EACH ROW WHEN (OLD.project_id <> NEW.project_id OR OLD.path <> NEW.path OR (OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL))
  EXECUTE FUNCTION "artifacts"."whole_repository_touched"();

-- As before, but what it forgets is still told to whoever remembers lists.
CREATE OR REPLACE FUNCTION "artifacts"."recount_listed"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  ids BIGINT[];
  digests TEXT[];
  times TIMESTAMPTZ[];
  time_ids BIGINT[];
  part RECORD;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('artifacts.listed_parts'), repository);
  WITH gone AS (DELETE FROM artifacts.listing_changes c WHERE c.repository_id = repository RETURNING c.*),
       told AS (INSERT INTO artifacts.listing_log (transaction_id, repository_id, manifest_id, digest)
                SELECT DISTINCT g.transaction_id, repository, g.manifest_id, g.digest FROM gone g)
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

-- Counts all of a repository by reading what it has once. Without statistics, as after a restore, Postgres thinks that there is next to nothing
-- and compares each row with each: no nested loops here, and each side is of the repository.
CREATE FUNCTION "artifacts"."count_whole_list"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged)
  SELECT repository, CASE WHEN n = 0 THEN '-infinity' ELSE min(r.pushed_at) END, CASE WHEN n = 0 THEN 0 ELSE min(r.id) FILTER (WHERE r.place = 0) END,
         count(*), count(*) FILTER (WHERE r.tagged)
    FROM (SELECT l.pushed_at, l.id, l.tagged, (row_number() OVER listed - 1) / 500 AS n, (row_number() OVER listed - 1) % 500 AS place
            FROM (SELECT m.pushed_at, m.id, m.digest, t.manifest_id IS NOT NULL AS tagged
                    FROM artifacts.manifests m
                    LEFT JOIN (SELECT DISTINCT t.manifest_id FROM artifacts.tags t WHERE t.repository_id = repository) t ON t.manifest_id = m.id
                   WHERE m.repository_id = repository AND m.subject_digest IS NULL AND m.deleted_at IS NULL) l
            LEFT JOIN (SELECT DISTINCT e.digest FROM artifacts.manifest_edges e
                         JOIN artifacts.manifests i ON i.id = e.manifest_id AND i.repository_id = repository AND i.deleted_at IS NULL
                        WHERE e.repository_id = repository AND e.kind = 'child') c ON c.digest = l.digest
           WHERE l.tagged OR c.digest IS NULL
          WINDOW listed AS (ORDER BY l.pushed_at, l.id)) r
   GROUP BY n;
  INSERT INTO artifacts.listed_parts (repository_id, from_at, from_id, artifacts, tagged) VALUES (repository, '-infinity', 0, 0, 0) ON CONFLICT DO NOTHING;
END $$;
ALTER FUNCTION "artifacts"."count_whole_list"(INTEGER) SET plan_cache_mode = force_custom_plan;
ALTER FUNCTION "artifacts"."count_whole_list"(INTEGER) SET enable_nestloop = off;

CREATE OR REPLACE FUNCTION "artifacts"."count_listed"("repository" INTEGER) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM artifacts.recount_listed(repository);
  IF NOT EXISTS (SELECT FROM artifacts.listed_parts l WHERE l.repository_id = repository) THEN
    PERFORM artifacts.count_whole_list(repository);
  END IF;
END $$;

-- A list of repositories by pulls is read in this order. Pulls are added up once a second, for each repository together.
CREATE INDEX "repositories_pulled_idx" ON "artifacts"."repositories" ("project_id", "pull_count", "id") WHERE "deleted_at" IS NULL AND "first_pushed_at" IS NOT NULL;
