-- A deletion takes away the lines of what it deletes, most of which is no index: the same, without calls.
CREATE OR REPLACE FUNCTION "artifacts"."manifest_terms_changed"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.deleted_at IS NOT NULL AND OLD.kind <> 'index' AND length(OLD.annotations::text) <= 4096 THEN
    DELETE FROM artifacts.search_terms s
     WHERE s.pushed_at = OLD.pushed_at AND s.manifest_id = OLD.id AND s.term = ANY (ARRAY(
       SELECT artifacts.search_term('annotation', a.key || '=' || a.value) FROM jsonb_each_text(OLD.annotations) a
       UNION ALL
       SELECT artifacts.search_term('platform', p.name)
         FROM (VALUES (OLD.facts #>> '{attributes,os}'),
                      ((OLD.facts #>> '{attributes,os}') || '/' || (OLD.facts #>> '{attributes,architecture}'))) p (name)
        WHERE p.name IS NOT NULL
       UNION ALL
       SELECT artifacts.search_term('label', l.label_id::text) FROM artifacts.artifact_labels l WHERE l.manifest_id = OLD.id));
    RETURN NULL;
  END IF;
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

-- As before, but what a manifest was and is are one statement.
CREATE OR REPLACE FUNCTION "artifacts"."manifest_touched"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id) VALUES (NEW.repository_id, NEW.id);
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id, pushed_at) VALUES (OLD.repository_id, OLD.id, OLD.pushed_at);
  ELSE
    INSERT INTO artifacts.listing_changes (repository_id, manifest_id, pushed_at)
    VALUES (OLD.repository_id, OLD.id, OLD.pushed_at), (NEW.repository_id, NEW.id, NULL);
    -- What a deleted index names, and what one that came back names.
    IF NEW.kind = 'index' THEN
      INSERT INTO artifacts.listing_changes (repository_id, digest)
      SELECT e.repository_id, e.digest FROM artifacts.manifest_edges e WHERE e.manifest_id = NEW.id AND e.kind = 'child';
    END IF;
  END IF;
  RETURN NULL;
END $$;
