-- Other registries, to replicate with and to pull through.
CREATE SCHEMA IF NOT EXISTS "registries";

CREATE TABLE "registries"."endpoints" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "type" TEXT NOT NULL,
    "url" TEXT NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "insecure" BOOLEAN NOT NULL DEFAULT false,
    "ca_certificate" TEXT NOT NULL DEFAULT '',
    "credential_type" TEXT NOT NULL DEFAULT '',
    "access_key" TEXT NOT NULL DEFAULT '',
    "access_secret" TEXT,
    "health" TEXT NOT NULL,
    "checked_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "endpoints_pkey" PRIMARY KEY ("id")
);

CREATE UNIQUE INDEX "endpoints_name_key" ON "registries"."endpoints"("name");
