-- Computed in plpgsql it took a tenth of a push: who makes a tag says its place in the order of versions (@haven/oci versionKey). A process
-- of the version before does not.
ALTER TABLE "artifacts"."tags" ALTER COLUMN "version_key" DROP EXPRESSION;
CREATE FUNCTION "artifacts"."set_version_key"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version_key := artifacts.version_key(NEW.name);
  RETURN NEW;
END $$;
CREATE TRIGGER "set_version_key" BEFORE INSERT ON "artifacts"."tags" FOR EACH ROW WHEN (NEW.version_key IS NULL)
  EXECUTE FUNCTION "artifacts"."set_version_key"();

-- An upload is written several times and then gone: with this index, which only the sweep used, each write made an entry in every other one.
-- The sweep reads the table, which holds what is open.
DROP INDEX "artifacts"."uploads_updated_at_idx";
ALTER TABLE "artifacts"."uploads" SET (fillfactor = 60);
