-- Rows :first to :last of what grows, as pushes and pulls would leave them: artifacts under a tag each in library/many, an index of two platforms
-- for every tenth in library/multi, referrers of one subject in library/signed, repositories of one artifact below library/catalog. All name
-- one shared config. Statements end in a line's semicolon.

insert into artifacts.repositories (project_id, path, first_pushed_at)
select p.id, path, now() from projects.projects p, unnest(array['many', 'multi', 'signed']) path where p.name_key = 'library'
on conflict do nothing;

insert into artifacts.blobs (digest, size_bytes, promised_until)
values ('sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', 2, now() + interval '1 day')
on conflict do nothing;

insert into artifacts.blob_links (repository_id, blob_id, promised_until)
select r.id, b.id, now() from artifacts.repositories r, artifacts.blobs b
 where r.path = 'many' and b.digest = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
on conflict do nothing;

with wanted as materialized (
  select n, body, 'sha256:' || encode(sha256(body), 'hex') as digest
    from generate_series(:first, :last) n,
         lateral (select convert_to('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"annotations":{"n":"' || lpad(n::text, 7, '0') || '"}}', 'UTF8') as body) b),
put as (
  insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, config_media_type, annotations, facts, pushed_by, pushed_at,
                                   pulled_at)
  select r.id, w.digest, 'application/vnd.oci.image.manifest.v1+json', 'image', case when w.n % 200 = 0 then 'CHART' else 'IMAGE' end, w.body,
         length(w.body), length(w.body) + 2, 'application/vnd.oci.image.config.v1+json',
         jsonb_build_object('n', lpad(w.n::text, 7, '0'), 'org.example.ring', 'r' || w.n % 50),
         jsonb_build_object('attributes', jsonb_build_object('os', 'linux', 'architecture', case when w.n % 50 = 0 then 'arm64' else 'amd64' end)),
         'admin', now() - (:last - w.n) * interval '1 minute',
         case when w.n % 3 > 0 then now() - (:last - w.n) * interval '1 minute' / (1 + w.n % 7) end
    from wanted w, artifacts.repositories r where r.path = 'many'
  returning id, repository_id, digest),
edges as (
  insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
  select id, 0, repository_id, 'config', 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', 'application/vnd.oci.image.config.v1+json', 2 from put)
insert into artifacts.tags (repository_id, name, manifest_id)
select put.repository_id, 't' || lpad(w.n::text, 7, '0'), put.id from put join wanted w using (digest);

insert into projects.labels (name, scope) select 'grown', 'g' where not exists (select from projects.labels where name = 'grown');

insert into artifacts.artifact_labels (label_id, manifest_id)
select l.id, m.id
  from projects.labels l, artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id
 where l.name = 'grown' and r.path = 'many' and (m.annotations ->> 'n')::int between :first and :last and (m.annotations ->> 'n')::int % 100 = 0;

with wanted as materialized (
  select n, os, architecture, body, 'sha256:' || encode(sha256(body), 'hex') as digest
    from generate_series(:first, :last) n,
         (values ('linux', 'amd64'), ('linux', 'riscv64'), ('', '')) p (os, architecture),
         lateral (select convert_to('{"of":"' || n || '","platform":"' || architecture || '"}', 'UTF8') as body) b
   where n % 10 = 0),
put as (
  insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, pushed_by, pushed_at)
  select r.id, w.digest, 'application/vnd.oci.image.manifest.v1+json', case when w.os = '' then 'index' else 'image' end, 'IMAGE', w.body,
         length(w.body), length(w.body), 'admin', now() - (:last - w.n) * interval '1 minute'
    from wanted w, artifacts.repositories r where r.path = 'multi'
  returning id, repository_id, digest, kind),
edges as (
  insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes, platform, urls)
  select put.id, row_number() over (partition by put.id), put.repository_id, 'child', c.digest, 'application/vnd.oci.image.manifest.v1+json', 2,
         jsonb_build_object('os', c.os, 'architecture', c.architecture), '{}'
    from put join wanted w using (digest) join wanted c on c.n = w.n and c.os <> '' where put.kind = 'index')
insert into artifacts.tags (repository_id, name, manifest_id)
select put.repository_id, 'v' || w.n, put.id from put join wanted w using (digest) where put.kind = 'index';

with put as (
  insert into artifacts.manifests (repository_id, digest, media_type, artifact_type, kind, payload, payload_bytes, total_bytes, subject_digest, pushed_by)
  select r.id, 'sha256:' || encode(sha256(body), 'hex'), 'application/vnd.oci.image.manifest.v1+json', 'application/vnd.example', 'image', body,
         length(body), length(body), 'sha256:' || repeat('5', 64), 'admin'
    from generate_series(:first, :last) n, lateral (select convert_to('{"referrer":"' || n || '"}', 'UTF8') as body) b, artifacts.repositories r
   where r.path = 'signed'
  returning id, repository_id, subject_digest)
insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
select id, 0, repository_id, 'subject', subject_digest, 'application/vnd.oci.image.manifest.v1+json', 2 from put;

with put as (
  insert into artifacts.repositories (project_id, path, first_pushed_at)
  select p.id, 'catalog/r' || lpad(n::text, 7, '0'), now() from projects.projects p, generate_series(:first, :last) n where p.name_key = 'library'
  returning id, path)
insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes, pushed_at)
select id, 'sha256:' || encode(sha256('{}'), 'hex'), 'application/vnd.oci.image.manifest.v1+json', 'image', '{}', 2, 2,
       now() - (:last - right(path, 7)::int) * interval '1 minute'
  from put;

insert into artifacts.last_pulls (manifest_id, pulled_at, pulled_day)
select id, pulled_at, (pulled_at at time zone 'UTC')::date from artifacts.manifests where pulled_at is not null
on conflict do nothing;

insert into projects.quota_deltas (project_id, delta_bytes, reason)
select p.id, 1000 * (:last - :first + 1)::bigint, 'seeded' from projects.projects p where p.name_key = 'library';

-- Lists are counted anew, as after a failover: a job would have counted while it grew, a thousand at a time.
-- Without statistics these counts would compare all rows with all.
analyze;

truncate artifacts.listed_parts, artifacts.listing_changes, artifacts.listing_log, artifacts.listing_epoch, artifacts.listed_repository_parts,
  artifacts.listed_repository_sections, artifacts.repository_changes;

select artifacts.total_listed(r.id) from artifacts.repositories r where r.path in ('many', 'multi', 'signed');

select artifacts.find_listed_repositories(p.id, 0) from projects.projects p where p.name_key = 'library';

vacuum analyze;
