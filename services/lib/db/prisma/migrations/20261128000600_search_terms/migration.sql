-- What artifacts are searched by that many have and that is not in a column of their own: annotations, platforms, labels. Each has its artifacts in
-- the order in which a search shows them, so that a page is read from its index, and a page of two of them from both side by side. Lines are
-- looked up and never believed: a search looks at what an artifact has. So one too many costs a look, and none may be missing.
CREATE TABLE "artifacts"."search_terms" (
    -- By `search_term`.
    "term" BIGINT NOT NULL,
    "pushed_at" TIMESTAMPTZ(3) NOT NULL,
    "manifest_id" BIGINT NOT NULL,
    "repository_id" INTEGER NOT NULL
);

-- A number, since an annotation may be longer than an index takes. By md5, which is the same on every machine.
CREATE FUNCTION "artifacts"."search_term"("kind" TEXT, "value" TEXT) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('x' || left(md5(kind || ' ' || value), 16))::bit(64)::bigint
$$;

-- An artifact with very many annotations would write more than its push did: it has one line, among which searches for any annotation look, too.
CREATE FUNCTION "artifacts"."annotation_terms"("annotations" JSONB) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF length(annotations::text) > 4096 THEN
    RETURN ARRAY[artifacts.search_term('annotations', 'many')];
  END IF;
  RETURN ARRAY(SELECT artifacts.search_term('annotation', a.key || '=' || a.value) FROM jsonb_each_text(annotations) a);
END $$;

CREATE FUNCTION "artifacts"."platform_terms"("os" TEXT, "architecture" TEXT) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN os IS NULL THEN '{}'
              WHEN architecture IS NULL THEN ARRAY[artifacts.search_term('platform', os)]
              ELSE ARRAY[artifacts.search_term('platform', os), artifacts.search_term('platform', os || '/' || architecture)] END
$$;

-- Its edges are written by the statement that writes it; labels come later. `OFFSET 0`, here and below: of a table without statistics, an index of
-- a part of its rows would be read through.
CREATE FUNCTION "artifacts"."search_terms_of"("m" "artifacts"."manifests", "fresh" BOOLEAN) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
DECLARE
  terms BIGINT[] := artifacts.platform_terms(m.facts #>> '{attributes,os}', m.facts #>> '{attributes,architecture}');
BEGIN
  IF m.annotations <> '{}' THEN
    terms := terms || artifacts.annotation_terms(m.annotations);
  END IF;
  IF m.kind = 'index' THEN
    terms := terms || ARRAY(
      SELECT unnest(artifacts.platform_terms(e.platform ->> 'os', e.platform ->> 'architecture'))
        FROM (SELECT e.* FROM artifacts.manifest_edges e WHERE e.manifest_id = m.id OFFSET 0) e WHERE e.kind = 'child' AND e.platform IS NOT NULL);
  END IF;
  IF NOT fresh THEN
    terms := terms || ARRAY(SELECT artifacts.search_term('label', l.label_id::text) FROM artifacts.artifact_labels l WHERE l.manifest_id = m.id);
  END IF;
  RETURN terms;
END $$;

INSERT INTO "artifacts"."search_terms" ("term", "pushed_at", "manifest_id", "repository_id")
SELECT t.term, m.pushed_at, m.id, m.repository_id
  FROM artifacts.manifests m
  JOIN (SELECT m.id, unnest(artifacts.annotation_terms(m.annotations)) AS term FROM artifacts.manifests m WHERE m.annotations <> '{}'
        UNION SELECT m.id, unnest(artifacts.platform_terms(m.facts #>> '{attributes,os}', m.facts #>> '{attributes,architecture}'))
                FROM artifacts.manifests m WHERE m.facts #>> '{attributes,os}' IS NOT NULL
        UNION SELECT e.manifest_id, unnest(artifacts.platform_terms(e.platform ->> 'os', e.platform ->> 'architecture'))
                FROM artifacts.manifest_edges e WHERE e.kind = 'child' AND e.platform IS NOT NULL
        UNION SELECT l.manifest_id, artifacts.search_term('label', l.label_id::text) FROM artifacts.artifact_labels l) t ON t.id = m.id
 WHERE m.subject_digest IS NULL AND m.deleted_at IS NULL
 ORDER BY m.pushed_at, m.id;
ALTER TABLE "artifacts"."search_terms" ADD CONSTRAINT "search_terms_pkey" PRIMARY KEY ("term", "pushed_at", "manifest_id") INCLUDE ("repository_id");
-- What is new is read from the index alone only once it was vacuumed; which terms are frequent, the planner has to know of more than a hundred.
ALTER TABLE "artifacts"."search_terms" SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 10000);
ALTER TABLE "artifacts"."search_terms" ALTER COLUMN "term" SET STATISTICS 1000;

CREATE FUNCTION "artifacts"."manifest_terms_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM artifacts.search_terms s
     WHERE s.term = ANY (artifacts.search_terms_of(OLD, false)) AND s.pushed_at = OLD.pushed_at AND s.manifest_id = OLD.id;
  END IF;
  IF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  IF TG_OP = 'INSERT' AND NEW.kind <> 'index' AND NEW.facts = '{}' AND length(NEW.annotations::text) <= 4096 THEN
    -- The same for what is pushed most, without calls.
    INSERT INTO artifacts.search_terms (term, pushed_at, manifest_id, repository_id)
    SELECT artifacts.search_term('annotation', a.key || '=' || a.value), NEW.pushed_at, NEW.id, NEW.repository_id
      FROM jsonb_each_text(NEW.annotations) a ON CONFLICT DO NOTHING;
  ELSIF NEW.subject_digest IS NULL AND NEW.deleted_at IS NULL THEN
    INSERT INTO artifacts.search_terms (term, pushed_at, manifest_id, repository_id)
    SELECT term, NEW.pushed_at, NEW.id, NEW.repository_id FROM unnest(artifacts.search_terms_of(NEW, TG_OP = 'INSERT')) term ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "search_inserted" AFTER INSERT ON "artifacts"."manifests"
  FOR EACH ROW WHEN (NEW.subject_digest IS NULL AND NEW.deleted_at IS NULL
                     AND (NEW.annotations <> '{}' OR NEW.kind = 'index' OR NEW.facts #>> '{attributes,os}' IS NOT NULL))
  EXECUTE FUNCTION "artifacts"."manifest_terms_changed"();
CREATE TRIGGER "search_updated" AFTER UPDATE OF "deleted_at", "subject_digest", "pushed_at", "facts" ON "artifacts"."manifests"
  FOR EACH ROW WHEN ((OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL) OR (OLD.subject_digest IS NULL) <> (NEW.subject_digest IS NULL)
                     OR OLD.pushed_at <> NEW.pushed_at
                     OR OLD.facts #>> '{attributes,os}' IS DISTINCT FROM NEW.facts #>> '{attributes,os}'
                     OR OLD.facts #>> '{attributes,architecture}' IS DISTINCT FROM NEW.facts #>> '{attributes,architecture}')
  EXECUTE FUNCTION "artifacts"."manifest_terms_changed"();
-- Before: its edges and labels go with it.
CREATE TRIGGER "search_removed" BEFORE DELETE ON "artifacts"."manifests"
  FOR EACH ROW WHEN (OLD.subject_digest IS NULL AND OLD.deleted_at IS NULL) EXECUTE FUNCTION "artifacts"."manifest_terms_changed"();

-- Who puts a label on an artifact holds it, so that it is not pushed again meanwhile. Whoever takes one off may leave a line.
CREATE FUNCTION "artifacts"."label_term_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO artifacts.search_terms (term, pushed_at, manifest_id, repository_id)
    SELECT artifacts.search_term('label', NEW.label_id::text), m.pushed_at, m.id, m.repository_id
      FROM (SELECT m.* FROM artifacts.manifests m WHERE m.id = NEW.manifest_id OFFSET 0) m WHERE m.subject_digest IS NULL AND m.deleted_at IS NULL
    ON CONFLICT DO NOTHING;
  ELSE
    DELETE FROM artifacts.search_terms s
     WHERE s.term = artifacts.search_term('label', OLD.label_id::text) AND s.manifest_id = OLD.manifest_id
       AND s.pushed_at = (SELECT m.pushed_at FROM artifacts.manifests m WHERE m.id = OLD.manifest_id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER "search_labelled" AFTER INSERT OR DELETE ON "artifacts"."artifact_labels"
  FOR EACH ROW EXECUTE FUNCTION "artifacts"."label_term_changed"();

-- What these found is found by the lines. That of annotations was the dearest of a push.
DROP INDEX "artifacts"."manifests_annotations_idx";
DROP INDEX "artifacts"."manifests_platform_idx";
DROP INDEX "artifacts"."manifest_edges_platform_idx";
-- A type's artifacts come from the index alone, too; what hangs on others is not among them.
DROP INDEX "artifacts"."manifests_type_pushed_at_id_idx";
CREATE INDEX "manifests_type_pushed_at_id_idx" ON "artifacts"."manifests" ("type", "pushed_at", "id") INCLUDE ("repository_id")
  WHERE "subject_digest" IS NULL AND "deleted_at" IS NULL;
