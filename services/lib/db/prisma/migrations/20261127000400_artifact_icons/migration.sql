-- An icon is asked for by its digest alone, and few artifacts bring one along.
CREATE INDEX "manifests_icon_idx" ON "artifacts"."manifests" (("facts" ->> 'icon')) WHERE "facts" ? 'icon';

-- What a runtime starts in a WebAssembly engine was called an image.
UPDATE "artifacts"."manifests" SET "type" = 'WASM'
 WHERE "type" = 'IMAGE' AND "kind" = 'image'
   AND ("annotations" ->> 'module.wasm.image/variant' = 'compat' OR "annotations" ->> 'run.oci.handler' = 'wasm');
