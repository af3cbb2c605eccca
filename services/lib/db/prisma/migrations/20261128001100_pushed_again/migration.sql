-- What was deleted and is pushed again is new: it was not pulled since, and nobody has put a label on it. What is restored keeps both.
DROP TRIGGER "forget_last_pull" ON "artifacts"."manifests";
DROP FUNCTION "artifacts"."forget_last_pull"();
CREATE FUNCTION "artifacts"."forget_what_was_deleted"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM artifacts.last_pulls WHERE manifest_id = NEW.id;
  DELETE FROM artifacts.artifact_labels WHERE manifest_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER "pushed_again" AFTER UPDATE OF "deleted_at", "pushed_at" ON "artifacts"."manifests"
  FOR EACH ROW WHEN (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL AND NEW.pushed_at <> OLD.pushed_at)
  EXECUTE FUNCTION "artifacts"."forget_what_was_deleted"();
