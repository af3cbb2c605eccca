-- A tombstone says by which door its manifest was deleted and in which request: what one deletion took comes back together.
ALTER TABLE "artifacts"."manifests" ADD COLUMN "deleted_door" TEXT, ADD COLUMN "deleted_request_id" TEXT;
CREATE INDEX "manifests_tombstones_idx" ON "artifacts"."manifests" ("repository_id", "deleted_at", "id") WHERE "deleted_at" IS NOT NULL;
-- The line of its history that ends a tag is the tag's tombstone.
ALTER TABLE "artifacts"."tag_history" ADD COLUMN "restorable_until" TIMESTAMPTZ(3);

-- A text whose order by code points is the natural order of what it was made of: runs of digits compare by value (their length without
-- leading zeros comes first), other runs as they are. `!` ends a run and a blank ends the text, so that what is shorter comes first.
CREATE FUNCTION "artifacts"."natural_key"("given" TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT coalesce(string_agg(
           CASE WHEN run[1] ~ '^[0-9]' THEN '0' || lpad(length(ltrim(run[1], '0'))::text, 3, '0') || ltrim(run[1], '0') ELSE run[1] || '!' END,
           '' ORDER BY place), '') || ' '
    FROM regexp_matches(given, '[0-9]+|[^0-9]+', 'g') WITH ORDINALITY AS runs (run, place)
$$;

-- The order of compareTags (@haven/oci) as a text: what is no version comes first, by its parts; then versions by their four numbers, those
-- with a pre-release before the release; what is equal by all of that, by its name.
CREATE FUNCTION "artifacts"."version_key"("tag" TEXT) RETURNS TEXT LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  form TEXT[] := regexp_match(tag, '^v?([0-9]{1,30}(?:[.][0-9]{1,30}){0,3})(?:-([0-9A-Za-z.-]+))?(?:_[0-9A-Za-z.-]+)?$');
  rest TEXT := artifacts.natural_key(tag) || tag;
  numbers TEXT[];
  part TEXT;
  key TEXT := '1';
BEGIN
  IF form IS NULL THEN
    RETURN '0' || rest;
  END IF;
  numbers := string_to_array(form[1], '.');
  FOR i IN 1..4 LOOP
    part := ltrim(coalesce(numbers[i], ''), '0');
    key := key || lpad(length(part)::text, 3, '0') || part;
  END LOOP;
  IF form[2] IS NULL THEN
    RETURN key || '~' || rest;
  END IF;
  key := key || '!';
  FOREACH part IN ARRAY string_to_array(form[2], '.') LOOP
    IF part ~ '^[0-9]+$' THEN
      part := ltrim(part, '0');
      key := key || '1' || lpad(length(part)::text, 3, '0') || part;
    ELSE
      key := key || '2' || artifacts.natural_key(part) || part || ' ';
    END IF;
  END LOOP;
  RETURN key || ' ' || rest;
END $$;

ALTER TABLE "artifacts"."tags" ADD COLUMN "version_key" TEXT COLLATE "C" GENERATED ALWAYS AS ("artifacts"."version_key"("name")) STORED;
CREATE INDEX "tags_repository_id_version_key_idx" ON "artifacts"."tags" ("repository_id", "version_key");
CREATE INDEX "tags_repository_id_pushed_at_id_idx" ON "artifacts"."tags" ("repository_id", "pushed_at", "id");

-- Search: tags of all repositories by the beginning of their name, manifests by the beginning of their digest (this index finds whole
-- ones, too), all artifacts and those of a type by time, annotations by name and value, indexes and images by platform.
CREATE INDEX "tags_name_idx" ON "artifacts"."tags" ("name");
DROP INDEX "artifacts"."manifests_digest_idx";
CREATE INDEX "manifests_digest_idx" ON "artifacts"."manifests" ("digest" text_pattern_ops);
CREATE INDEX "manifests_pushed_at_id_idx" ON "artifacts"."manifests" ("pushed_at", "id");
CREATE INDEX "manifests_type_pushed_at_id_idx" ON "artifacts"."manifests" ("type", "pushed_at", "id");
CREATE INDEX "manifests_annotations_idx" ON "artifacts"."manifests" USING GIN ("annotations" jsonb_path_ops) WHERE "annotations" <> '{}';
CREATE INDEX "manifest_edges_platform_idx" ON "artifacts"."manifest_edges" (("platform" ->> 'os'), ("platform" ->> 'architecture'), "manifest_id")
  WHERE "kind" = 'child' AND "platform" IS NOT NULL;
CREATE INDEX "manifests_platform_idx" ON "artifacts"."manifests" (("facts" #>> '{attributes,os}'), ("facts" #>> '{attributes,architecture}'), "id")
  WHERE "facts" #>> '{attributes,os}' IS NOT NULL;
