-- A manifest that is pushed again under another media type is in another list of those that ask for one; so is what anything else may change that
-- lists ask for or are in the order of.
DROP TRIGGER "listing_updated" ON "artifacts"."manifests";
CREATE TRIGGER "listing_updated" AFTER UPDATE OF "deleted_at", "subject_digest", "pushed_at", "media_type", "artifact_type", "config_media_type", "type", "total_bytes"
  ON "artifacts"."manifests"
  FOR EACH ROW WHEN ((OLD.deleted_at IS NULL) <> (NEW.deleted_at IS NULL) OR (OLD.subject_digest IS NULL) <> (NEW.subject_digest IS NULL)
                     OR OLD.pushed_at <> NEW.pushed_at OR OLD.media_type <> NEW.media_type OR OLD.type <> NEW.type OR OLD.total_bytes <> NEW.total_bytes
                     OR OLD.artifact_type IS DISTINCT FROM NEW.artifact_type OR OLD.config_media_type IS DISTINCT FROM NEW.config_media_type)
  EXECUTE FUNCTION "artifacts"."manifest_touched"();
