-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "artifacts";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "events";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "identity";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "jobs";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "projects";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "scanning";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "system";

-- CreateSchema
CREATE SCHEMA IF NOT EXISTS "trust";

-- CreateTable
CREATE TABLE "system"."instance" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "uuid" UUID NOT NULL DEFAULT gen_random_uuid(),
    "key_canary" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "instance_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "system"."settings" (
    "key" TEXT NOT NULL,
    "value" JSONB NOT NULL,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_by" TEXT,

    CONSTRAINT "settings_pkey" PRIMARY KEY ("key")
);

-- CreateTable
CREATE TABLE "identity"."users" (
    "id" SERIAL NOT NULL,
    "username" TEXT NOT NULL,
    "username_key" TEXT,
    "email" TEXT,
    "email_key" TEXT,
    "realname" TEXT NOT NULL DEFAULT '',
    "comment" TEXT NOT NULL DEFAULT '',
    "disabled_at" TIMESTAMPTZ(3),
    "deleted_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."identities" (
    "id" SERIAL NOT NULL,
    "user_id" INTEGER NOT NULL,
    "provider" TEXT NOT NULL,
    "subject" TEXT NOT NULL,
    "claims" JSONB NOT NULL DEFAULT '{}',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_used_at" TIMESTAMPTZ(3),

    CONSTRAINT "identities_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."credentials" (
    "id" SERIAL NOT NULL,
    "user_id" INTEGER,
    "robot_id" INTEGER,
    "kind" TEXT NOT NULL,
    "version" TEXT NOT NULL,
    "hash" TEXT NOT NULL,
    "salt" TEXT NOT NULL DEFAULT '',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),
    "last_used_at" TIMESTAMPTZ(3),
    "last_used_address" TEXT,
    "last_used_agent" TEXT,

    CONSTRAINT "credentials_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."groups" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "provider" TEXT NOT NULL,
    "external_id" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "groups_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."group_members" (
    "group_id" INTEGER NOT NULL,
    "user_id" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "group_members_pkey" PRIMARY KEY ("group_id","user_id")
);

-- CreateTable
CREATE TABLE "identity"."robots" (
    "id" SERIAL NOT NULL,
    "name_key" TEXT,
    "name" TEXT NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "project_id" INTEGER,
    "duration_days" INTEGER NOT NULL DEFAULT -1,
    "expires_at" TIMESTAMPTZ(3),
    "disabled_at" TIMESTAMPTZ(3),
    "visible" BOOLEAN NOT NULL DEFAULT true,
    "editable" BOOLEAN NOT NULL DEFAULT true,
    "creator_kind" TEXT NOT NULL DEFAULT 'local',
    "creator_id" INTEGER NOT NULL DEFAULT 0,
    "deleted_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "robots_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."roles" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "title" TEXT NOT NULL,
    "weight" INTEGER NOT NULL DEFAULT 0,
    "preset" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "roles_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."role_permissions" (
    "role_id" INTEGER NOT NULL,
    "resource" TEXT NOT NULL,
    "action" TEXT NOT NULL,

    CONSTRAINT "role_permissions_pkey" PRIMARY KEY ("role_id","resource","action")
);

-- CreateTable
CREATE TABLE "identity"."grants" (
    "id" SERIAL NOT NULL,
    "principal_kind" TEXT NOT NULL,
    "principal_id" INTEGER NOT NULL DEFAULT 0,
    "role_id" INTEGER,
    "resource" TEXT,
    "action" TEXT,
    "effect" TEXT NOT NULL DEFAULT 'allow',
    "node_kind" TEXT NOT NULL,
    "project_id" INTEGER,
    "repository" TEXT,
    "tag_pattern" TEXT,
    "created_by" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3),

    CONSTRAINT "grants_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "identity"."signing_keys" (
    "kid" TEXT NOT NULL,
    "algorithm" TEXT NOT NULL,
    "public_pem" TEXT NOT NULL,
    "private_pem" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "retired_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),

    CONSTRAINT "signing_keys_pkey" PRIMARY KEY ("kid")
);

-- CreateTable
CREATE TABLE "projects"."projects" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "name_key" TEXT,
    "owner_id" INTEGER NOT NULL,
    "registry_id" INTEGER,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deleted_at" TIMESTAMPTZ(3),

    CONSTRAINT "projects_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "projects"."project_aliases" (
    "name" TEXT NOT NULL,
    "project_id" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "project_aliases_pkey" PRIMARY KEY ("name")
);

-- CreateTable
CREATE TABLE "projects"."project_metadata" (
    "project_id" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "value" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "project_metadata_pkey" PRIMARY KEY ("project_id","name")
);

-- CreateTable
CREATE TABLE "projects"."cve_allowlists" (
    "project_id" INTEGER NOT NULL,
    "items" JSONB NOT NULL DEFAULT '[]',
    "expires_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "cve_allowlists_pkey" PRIMARY KEY ("project_id")
);

-- CreateTable
CREATE TABLE "projects"."labels" (
    "id" SERIAL NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "color" TEXT NOT NULL DEFAULT '',
    "scope" TEXT NOT NULL,
    "project_id" INTEGER NOT NULL DEFAULT 0,
    "deleted_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "labels_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "projects"."quotas" (
    "project_id" INTEGER NOT NULL,
    "hard_bytes" BIGINT NOT NULL DEFAULT -1,
    "used_bytes" BIGINT NOT NULL DEFAULT 0,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "quotas_pkey" PRIMARY KEY ("project_id")
);

-- CreateTable
CREATE TABLE "projects"."quota_deltas" (
    "id" BIGSERIAL NOT NULL,
    "project_id" INTEGER NOT NULL,
    "delta_bytes" BIGINT NOT NULL,
    "reason" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "quota_deltas_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "projects"."immutable_rules" (
    "id" SERIAL NOT NULL,
    "project_id" INTEGER NOT NULL,
    "rule" JSONB NOT NULL,
    "protect_overwrite" BOOLEAN NOT NULL DEFAULT true,
    "protect_delete" BOOLEAN NOT NULL DEFAULT true,
    "disabled" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "immutable_rules_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."repositories" (
    "id" SERIAL NOT NULL,
    "project_id" INTEGER NOT NULL,
    "path" TEXT NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "pull_count" BIGINT NOT NULL DEFAULT 0,
    "first_pushed_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deleted_at" TIMESTAMPTZ(3),

    CONSTRAINT "repositories_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."repository_aliases" (
    "project_id" INTEGER NOT NULL,
    "path" TEXT NOT NULL,
    "repository_id" INTEGER NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "repository_aliases_pkey" PRIMARY KEY ("project_id","path")
);

-- CreateTable
CREATE TABLE "artifacts"."manifests" (
    "id" BIGSERIAL NOT NULL,
    "repository_id" INTEGER NOT NULL,
    "digest" TEXT NOT NULL,
    "media_type" TEXT NOT NULL,
    "artifact_type" TEXT,
    "kind" TEXT NOT NULL,
    "type" TEXT NOT NULL DEFAULT 'UNKNOWN',
    "payload" BYTEA NOT NULL,
    "payload_bytes" INTEGER NOT NULL,
    "total_bytes" BIGINT NOT NULL,
    "config_media_type" TEXT,
    "subject_digest" TEXT,
    "annotations" JSONB NOT NULL DEFAULT '{}',
    "facts" JSONB NOT NULL DEFAULT '{}',
    "pushed_by" TEXT,
    "pushed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "pulled_at" TIMESTAMPTZ(3),
    "promised_until" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deleted_at" TIMESTAMPTZ(3),
    "deleted_by" TEXT,
    "deleted_reason" TEXT,
    "purge_after" TIMESTAMPTZ(3),

    CONSTRAINT "manifests_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."manifest_edges" (
    "manifest_id" BIGINT NOT NULL,
    "position" INTEGER NOT NULL,
    "repository_id" INTEGER NOT NULL,
    "kind" TEXT NOT NULL,
    "digest" TEXT NOT NULL,
    "media_type" TEXT NOT NULL,
    "size_bytes" BIGINT NOT NULL,
    "artifact_type" TEXT,
    "platform" JSONB,
    "annotations" JSONB,
    "urls" TEXT[],

    CONSTRAINT "manifest_edges_pkey" PRIMARY KEY ("manifest_id","position")
);

-- CreateTable
CREATE TABLE "artifacts"."tags" (
    "id" BIGSERIAL NOT NULL,
    "repository_id" INTEGER NOT NULL,
    "name" TEXT NOT NULL,
    "manifest_id" BIGINT NOT NULL,
    "pushed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "pulled_at" TIMESTAMPTZ(3),

    CONSTRAINT "tags_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."tag_history" (
    "id" BIGSERIAL NOT NULL,
    "repository_id" INTEGER NOT NULL,
    "tag" TEXT NOT NULL,
    "from_digest" TEXT,
    "to_digest" TEXT,
    "actor" TEXT NOT NULL,
    "door" TEXT NOT NULL,
    "reason" TEXT,
    "request_id" TEXT,
    "changed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tag_history_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."blobs" (
    "id" BIGSERIAL NOT NULL,
    "digest" TEXT NOT NULL,
    "size_bytes" BIGINT NOT NULL,
    "promised_until" TIMESTAMPTZ(3) NOT NULL,
    "damaged_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "blobs_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."blob_locations" (
    "blob_id" BIGINT NOT NULL,
    "store" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "blob_locations_pkey" PRIMARY KEY ("blob_id","store")
);

-- CreateTable
CREATE TABLE "artifacts"."blob_links" (
    "repository_id" INTEGER NOT NULL,
    "blob_id" BIGINT NOT NULL,
    "promised_until" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "blob_links_pkey" PRIMARY KEY ("repository_id","blob_id")
);

-- CreateTable
CREATE TABLE "artifacts"."uploads" (
    "id" UUID NOT NULL,
    "project_id" INTEGER NOT NULL,
    "path" TEXT NOT NULL,
    "principal" TEXT NOT NULL,
    "store" TEXT NOT NULL,
    "key" TEXT NOT NULL,
    "digest_algorithm" TEXT NOT NULL DEFAULT 'sha256',
    "offset_bytes" BIGINT NOT NULL DEFAULT 0,
    "state" JSONB,
    "fence" INTEGER NOT NULL DEFAULT 0,
    "locked_until" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "uploads_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."trash" (
    "key" TEXT NOT NULL,
    "store" TEXT NOT NULL,
    "digest" TEXT,
    "size_bytes" BIGINT NOT NULL DEFAULT 0,
    "state" JSONB,
    "reason" TEXT NOT NULL,
    "execution_id" BIGINT,
    "trashed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "erase_after" TIMESTAMPTZ(3) NOT NULL,
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "last_error" TEXT,

    CONSTRAINT "trash_pkey" PRIMARY KEY ("key")
);

-- CreateTable
CREATE TABLE "artifacts"."removals" (
    "id" BIGSERIAL NOT NULL,
    "digest" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
    "repository" TEXT,
    "size_bytes" BIGINT NOT NULL DEFAULT 0,
    "actor" TEXT NOT NULL,
    "reason" TEXT NOT NULL,
    "execution_id" BIGINT,
    "removed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "removals_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "artifacts"."artifact_labels" (
    "label_id" INTEGER NOT NULL,
    "manifest_id" BIGINT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "artifact_labels_pkey" PRIMARY KEY ("label_id","manifest_id")
);

-- CreateTable
CREATE TABLE "events"."outbox" (
    "id" BIGSERIAL NOT NULL,
    "type" TEXT NOT NULL,
    "payload" JSONB NOT NULL,
    "project_id" INTEGER,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "dispatched_at" TIMESTAMPTZ(3),

    CONSTRAINT "outbox_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "events"."audit_entries" (
    "id" BIGSERIAL NOT NULL,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "event_id" BIGINT,
    "project_id" INTEGER,
    "operation" TEXT NOT NULL,
    "resource_type" TEXT NOT NULL,
    "resource" TEXT NOT NULL,
    "actor" TEXT NOT NULL,
    "description" TEXT NOT NULL DEFAULT '',
    "success" BOOLEAN NOT NULL DEFAULT true,
    "payload" JSONB,
    "source_address" TEXT,
    "request_id" TEXT,

    CONSTRAINT "audit_entries_pkey" PRIMARY KEY ("id","occurred_at")
) PARTITION BY RANGE ("occurred_at");

-- CreateTable
CREATE TABLE "jobs"."executions" (
    "id" BIGSERIAL NOT NULL,
    "vendor_type" TEXT NOT NULL,
    "vendor_id" BIGINT NOT NULL DEFAULT -1,
    "trigger" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'Pending',
    "status_message" TEXT NOT NULL DEFAULT '',
    "parameters" JSONB NOT NULL DEFAULT '{}',
    "extra_attrs" JSONB NOT NULL DEFAULT '{}',
    "actor" TEXT NOT NULL DEFAULT '',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),
    "stop_requested_at" TIMESTAMPTZ(3),

    CONSTRAINT "executions_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "jobs"."tasks" (
    "id" BIGSERIAL NOT NULL,
    "execution_id" BIGINT NOT NULL,
    "job_id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "job_type" TEXT NOT NULL,
    "parameters" JSONB NOT NULL DEFAULT '{}',
    "status" TEXT NOT NULL DEFAULT 'Pending',
    "status_message" TEXT NOT NULL DEFAULT '',
    "attempt" INTEGER NOT NULL DEFAULT 0,
    "max_attempts" INTEGER NOT NULL DEFAULT 1,
    "run_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "lease_owner" TEXT,
    "lease_until" TIMESTAMPTZ(3),
    "fence" INTEGER NOT NULL DEFAULT 0,
    "cursor" JSONB,
    "progress" JSONB,
    "extra_attrs" JSONB NOT NULL DEFAULT '{}',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "started_at" TIMESTAMPTZ(3),
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),

    CONSTRAINT "tasks_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "jobs"."task_attempts" (
    "task_id" BIGINT NOT NULL,
    "attempt" INTEGER NOT NULL,
    "worker" TEXT NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "ended_at" TIMESTAMPTZ(3),
    "outcome" TEXT,
    "error" TEXT,

    CONSTRAINT "task_attempts_pkey" PRIMARY KEY ("task_id","attempt")
);

-- CreateTable
CREATE TABLE "jobs"."task_log" (
    "id" BIGSERIAL NOT NULL,
    "task_id" BIGINT NOT NULL,
    "logged_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "level" TEXT NOT NULL,
    "line" TEXT NOT NULL,

    CONSTRAINT "task_log_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "jobs"."schedules" (
    "id" SERIAL NOT NULL,
    "vendor_type" TEXT NOT NULL,
    "vendor_id" BIGINT NOT NULL DEFAULT -1,
    "cron" TEXT NOT NULL,
    "cron_type" TEXT NOT NULL,
    "parameters" JSONB NOT NULL DEFAULT '{}',
    "actor" TEXT NOT NULL DEFAULT '',
    "next_run_at" TIMESTAMPTZ(3),
    "last_run_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "schedules_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "jobs"."queue_states" (
    "job_type" TEXT NOT NULL,
    "paused" BOOLEAN NOT NULL DEFAULT false,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "queue_states_pkey" PRIMARY KEY ("job_type")
);

-- CreateTable
CREATE TABLE "jobs"."workers" (
    "id" TEXT NOT NULL,
    "host" TEXT NOT NULL,
    "pid" INTEGER NOT NULL,
    "concurrency" INTEGER NOT NULL,
    "started_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "heartbeat_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "workers_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "scanning"."packages" (
    "id" BIGSERIAL NOT NULL,
    "ecosystem" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "version" TEXT NOT NULL,
    "purl" TEXT,

    CONSTRAINT "packages_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "scanning"."layer_packages" (
    "layer_digest" TEXT NOT NULL,
    "package_id" BIGINT NOT NULL,
    "location" TEXT NOT NULL DEFAULT '',

    CONSTRAINT "layer_packages_pkey" PRIMARY KEY ("layer_digest","package_id","location")
);

-- CreateTable
CREATE TABLE "scanning"."vulnerabilities" (
    "id" TEXT NOT NULL,
    "severity" TEXT NOT NULL,
    "score_v3" DOUBLE PRECISION,
    "description" TEXT NOT NULL DEFAULT '',
    "facts" JSONB NOT NULL DEFAULT '{}',
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "vulnerabilities_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "scanning"."findings" (
    "package_id" BIGINT NOT NULL,
    "vulnerability_id" TEXT NOT NULL,
    "scanner_id" INTEGER NOT NULL,
    "fixed_version" TEXT,
    "status" TEXT NOT NULL DEFAULT 'affected',
    "first_seen_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "last_seen_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "findings_pkey" PRIMARY KEY ("package_id","vulnerability_id","scanner_id")
);

-- CreateTable
CREATE TABLE "trust"."verdicts" (
    "project_id" INTEGER NOT NULL,
    "digest" TEXT NOT NULL,
    "gate" TEXT NOT NULL,
    "policy_revision" INTEGER NOT NULL,
    "allowed" BOOLEAN NOT NULL,
    "reasons" JSONB NOT NULL DEFAULT '[]',
    "decided_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "valid_until" TIMESTAMPTZ(3),

    CONSTRAINT "verdicts_pkey" PRIMARY KEY ("project_id","digest","gate")
);

-- CreateIndex
CREATE UNIQUE INDEX "users_username_key_key" ON "identity"."users"("username_key");

-- CreateIndex
CREATE UNIQUE INDEX "users_email_key_key" ON "identity"."users"("email_key");

-- CreateIndex
CREATE INDEX "identities_user_id_idx" ON "identity"."identities"("user_id");

-- CreateIndex
CREATE UNIQUE INDEX "identities_provider_subject_key" ON "identity"."identities"("provider", "subject");

-- CreateIndex
CREATE INDEX "credentials_user_id_kind_idx" ON "identity"."credentials"("user_id", "kind");

-- CreateIndex
CREATE INDEX "credentials_robot_id_idx" ON "identity"."credentials"("robot_id");

-- CreateIndex
CREATE UNIQUE INDEX "groups_provider_external_id_key" ON "identity"."groups"("provider", "external_id");

-- CreateIndex
CREATE INDEX "group_members_user_id_idx" ON "identity"."group_members"("user_id");

-- CreateIndex
CREATE UNIQUE INDEX "robots_name_key_key" ON "identity"."robots"("name_key");

-- CreateIndex
CREATE INDEX "robots_project_id_idx" ON "identity"."robots"("project_id");

-- CreateIndex
CREATE UNIQUE INDEX "roles_name_key" ON "identity"."roles"("name");

-- CreateIndex
CREATE INDEX "grants_principal_kind_principal_id_idx" ON "identity"."grants"("principal_kind", "principal_id");

-- CreateIndex
CREATE INDEX "grants_project_id_idx" ON "identity"."grants"("project_id");

-- CreateIndex
CREATE UNIQUE INDEX "projects_name_key_key" ON "projects"."projects"("name_key");

-- CreateIndex
CREATE INDEX "projects_owner_id_idx" ON "projects"."projects"("owner_id");

-- CreateIndex
CREATE INDEX "project_aliases_project_id_idx" ON "projects"."project_aliases"("project_id");

-- CreateIndex
CREATE INDEX "project_metadata_name_value_idx" ON "projects"."project_metadata"("name", "value");

-- CreateIndex
CREATE INDEX "labels_project_id_name_idx" ON "projects"."labels"("project_id", "name");

-- CreateIndex
CREATE INDEX "quota_deltas_project_id_idx" ON "projects"."quota_deltas"("project_id");

-- CreateIndex
CREATE INDEX "immutable_rules_project_id_idx" ON "projects"."immutable_rules"("project_id");

-- CreateIndex
CREATE UNIQUE INDEX "repositories_project_id_path_key" ON "artifacts"."repositories"("project_id", "path");

-- CreateIndex
CREATE INDEX "repository_aliases_repository_id_idx" ON "artifacts"."repository_aliases"("repository_id");

-- CreateIndex
CREATE INDEX "manifests_repository_id_pushed_at_id_idx" ON "artifacts"."manifests"("repository_id", "pushed_at", "id");

-- CreateIndex
CREATE INDEX "manifests_repository_id_subject_digest_idx" ON "artifacts"."manifests"("repository_id", "subject_digest");

-- CreateIndex
CREATE INDEX "manifests_digest_idx" ON "artifacts"."manifests"("digest");

-- CreateIndex
CREATE UNIQUE INDEX "manifests_repository_id_digest_key" ON "artifacts"."manifests"("repository_id", "digest");

-- CreateIndex
CREATE INDEX "manifest_edges_repository_id_digest_idx" ON "artifacts"."manifest_edges"("repository_id", "digest");

-- CreateIndex
CREATE INDEX "manifest_edges_digest_idx" ON "artifacts"."manifest_edges"("digest");

-- CreateIndex
CREATE INDEX "tags_manifest_id_idx" ON "artifacts"."tags"("manifest_id");

-- CreateIndex
CREATE UNIQUE INDEX "tags_repository_id_name_key" ON "artifacts"."tags"("repository_id", "name");

-- CreateIndex
CREATE INDEX "tag_history_repository_id_tag_id_idx" ON "artifacts"."tag_history"("repository_id", "tag", "id");

-- CreateIndex
CREATE UNIQUE INDEX "blobs_digest_key" ON "artifacts"."blobs"("digest");

-- CreateIndex
CREATE INDEX "blobs_promised_until_idx" ON "artifacts"."blobs"("promised_until");

-- CreateIndex
CREATE UNIQUE INDEX "blob_locations_key_key" ON "artifacts"."blob_locations"("key");

-- CreateIndex
CREATE INDEX "blob_links_blob_id_idx" ON "artifacts"."blob_links"("blob_id");

-- CreateIndex
CREATE UNIQUE INDEX "uploads_key_key" ON "artifacts"."uploads"("key");

-- CreateIndex
CREATE INDEX "uploads_updated_at_idx" ON "artifacts"."uploads"("updated_at");

-- CreateIndex
CREATE INDEX "uploads_project_id_idx" ON "artifacts"."uploads"("project_id");

-- CreateIndex
CREATE INDEX "uploads_principal_idx" ON "artifacts"."uploads"("principal");

-- CreateIndex
CREATE INDEX "trash_erase_after_idx" ON "artifacts"."trash"("erase_after");

-- CreateIndex
CREATE INDEX "removals_digest_idx" ON "artifacts"."removals"("digest");

-- CreateIndex
CREATE INDEX "removals_removed_at_idx" ON "artifacts"."removals"("removed_at");

-- CreateIndex
CREATE INDEX "artifact_labels_manifest_id_idx" ON "artifacts"."artifact_labels"("manifest_id");

-- CreateIndex
CREATE INDEX "audit_entries_occurred_at_idx" ON "events"."audit_entries"("occurred_at");

-- CreateIndex
CREATE INDEX "audit_entries_project_id_occurred_at_idx" ON "events"."audit_entries"("project_id", "occurred_at");

-- CreateIndex
CREATE INDEX "executions_vendor_type_vendor_id_id_idx" ON "jobs"."executions"("vendor_type", "vendor_id", "id");

-- CreateIndex
CREATE INDEX "executions_created_at_idx" ON "jobs"."executions"("created_at");

-- CreateIndex
CREATE UNIQUE INDEX "tasks_job_id_key" ON "jobs"."tasks"("job_id");

-- CreateIndex
CREATE INDEX "tasks_execution_id_idx" ON "jobs"."tasks"("execution_id");

-- CreateIndex
CREATE INDEX "tasks_job_type_status_run_at_idx" ON "jobs"."tasks"("job_type", "status", "run_at");

-- CreateIndex
CREATE INDEX "task_log_task_id_id_idx" ON "jobs"."task_log"("task_id", "id");

-- CreateIndex
CREATE INDEX "schedules_next_run_at_idx" ON "jobs"."schedules"("next_run_at");

-- CreateIndex
CREATE UNIQUE INDEX "schedules_vendor_type_vendor_id_key" ON "jobs"."schedules"("vendor_type", "vendor_id");

-- CreateIndex
CREATE INDEX "packages_name_idx" ON "scanning"."packages"("name");

-- CreateIndex
CREATE UNIQUE INDEX "packages_ecosystem_name_version_key" ON "scanning"."packages"("ecosystem", "name", "version");

-- CreateIndex
CREATE INDEX "layer_packages_package_id_idx" ON "scanning"."layer_packages"("package_id");

-- CreateIndex
CREATE INDEX "vulnerabilities_severity_idx" ON "scanning"."vulnerabilities"("severity");

-- CreateIndex
CREATE INDEX "findings_vulnerability_id_idx" ON "scanning"."findings"("vulnerability_id");

-- AddForeignKey
ALTER TABLE "identity"."identities" ADD CONSTRAINT "identities_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "identity"."users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."credentials" ADD CONSTRAINT "credentials_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "identity"."users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."credentials" ADD CONSTRAINT "credentials_robot_id_fkey" FOREIGN KEY ("robot_id") REFERENCES "identity"."robots"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."group_members" ADD CONSTRAINT "group_members_group_id_fkey" FOREIGN KEY ("group_id") REFERENCES "identity"."groups"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."group_members" ADD CONSTRAINT "group_members_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "identity"."users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."role_permissions" ADD CONSTRAINT "role_permissions_role_id_fkey" FOREIGN KEY ("role_id") REFERENCES "identity"."roles"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "identity"."grants" ADD CONSTRAINT "grants_role_id_fkey" FOREIGN KEY ("role_id") REFERENCES "identity"."roles"("id") ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "projects"."project_aliases" ADD CONSTRAINT "project_aliases_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"."projects"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "projects"."project_metadata" ADD CONSTRAINT "project_metadata_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"."projects"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "projects"."quotas" ADD CONSTRAINT "quotas_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"."projects"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "projects"."immutable_rules" ADD CONSTRAINT "immutable_rules_project_id_fkey" FOREIGN KEY ("project_id") REFERENCES "projects"."projects"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."repository_aliases" ADD CONSTRAINT "repository_aliases_repository_id_fkey" FOREIGN KEY ("repository_id") REFERENCES "artifacts"."repositories"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."manifests" ADD CONSTRAINT "manifests_repository_id_fkey" FOREIGN KEY ("repository_id") REFERENCES "artifacts"."repositories"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."manifest_edges" ADD CONSTRAINT "manifest_edges_manifest_id_fkey" FOREIGN KEY ("manifest_id") REFERENCES "artifacts"."manifests"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."tags" ADD CONSTRAINT "tags_repository_id_fkey" FOREIGN KEY ("repository_id") REFERENCES "artifacts"."repositories"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."tags" ADD CONSTRAINT "tags_manifest_id_fkey" FOREIGN KEY ("manifest_id") REFERENCES "artifacts"."manifests"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."blob_locations" ADD CONSTRAINT "blob_locations_blob_id_fkey" FOREIGN KEY ("blob_id") REFERENCES "artifacts"."blobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."blob_links" ADD CONSTRAINT "blob_links_repository_id_fkey" FOREIGN KEY ("repository_id") REFERENCES "artifacts"."repositories"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."blob_links" ADD CONSTRAINT "blob_links_blob_id_fkey" FOREIGN KEY ("blob_id") REFERENCES "artifacts"."blobs"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "artifacts"."artifact_labels" ADD CONSTRAINT "artifact_labels_manifest_id_fkey" FOREIGN KEY ("manifest_id") REFERENCES "artifacts"."manifests"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "jobs"."tasks" ADD CONSTRAINT "tasks_execution_id_fkey" FOREIGN KEY ("execution_id") REFERENCES "jobs"."executions"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "jobs"."task_attempts" ADD CONSTRAINT "task_attempts_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "jobs"."tasks"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "jobs"."task_log" ADD CONSTRAINT "task_log_task_id_fkey" FOREIGN KEY ("task_id") REFERENCES "jobs"."tasks"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "scanning"."layer_packages" ADD CONSTRAINT "layer_packages_package_id_fkey" FOREIGN KEY ("package_id") REFERENCES "scanning"."packages"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "scanning"."findings" ADD CONSTRAINT "findings_package_id_fkey" FOREIGN KEY ("package_id") REFERENCES "scanning"."packages"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "scanning"."findings" ADD CONSTRAINT "findings_vulnerability_id_fkey" FOREIGN KEY ("vulnerability_id") REFERENCES "scanning"."vulnerabilities"("id") ON DELETE CASCADE ON UPDATE CASCADE;


-- What Prisma's schema cannot say.

-- Partitions by month are made ahead by a job; this one takes what falls between.
CREATE TABLE "events"."audit_entries_default" PARTITION OF "events"."audit_entries" DEFAULT;

CREATE INDEX "outbox_undispatched_idx" ON "events"."outbox"("id") WHERE "dispatched_at" IS NULL;

-- Whether an execution has tasks to do is asked at the end of each of them; it may have ten thousand.
CREATE INDEX "tasks_open_idx" ON "jobs"."tasks"("execution_id") WHERE "status" IN ('Pending', 'Scheduled', 'Running');

-- A member has one role in a project.
CREATE UNIQUE INDEX "grants_member_key" ON "identity"."grants"("project_id", "principal_kind", "principal_id")
  WHERE "node_kind" = 'project' AND "role_id" IS NOT NULL AND "principal_kind" IN ('user', 'group');
CREATE UNIQUE INDEX "grants_system_role_key" ON "identity"."grants"("principal_kind", "principal_id", "role_id")
  WHERE "node_kind" = 'system' AND "role_id" IS NOT NULL;
CREATE UNIQUE INDEX "labels_name_key" ON "projects"."labels"("name", "scope", "project_id") WHERE "deleted_at" IS NULL;

ALTER TABLE "system"."instance" ADD CONSTRAINT "instance_one_row" CHECK ("id" = 1);
ALTER TABLE "identity"."credentials" ADD CONSTRAINT "credentials_one_principal" CHECK (("user_id" IS NULL) <> ("robot_id" IS NULL));
ALTER TABLE "identity"."grants" ADD CONSTRAINT "grants_role_or_permission" CHECK (("role_id" IS NULL) = ("resource" IS NOT NULL AND "action" IS NOT NULL));
ALTER TABLE "artifacts"."uploads" ADD CONSTRAINT "uploads_offset" CHECK ("offset_bytes" >= 0);

-- Caches of other processes hear of changes here. Pushes do not announce: NOTIFY takes a lock that all commits would queue on.
CREATE FUNCTION "system"."announce"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('haven', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME);
  RETURN NULL;
END $$;
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "projects"."projects" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "projects"."project_aliases" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "projects"."project_metadata" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "projects"."immutable_rules" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."users" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR DELETE OR UPDATE OF "hash", "expires_at", "revoked_at" ON "identity"."credentials" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."robots" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."groups" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."group_members" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."roles" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."role_permissions" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."grants" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "identity"."signing_keys" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
CREATE TRIGGER "announce" AFTER INSERT OR UPDATE OR DELETE ON "system"."settings" FOR EACH STATEMENT EXECUTE FUNCTION "system"."announce"();
