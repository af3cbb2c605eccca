-- Rows :first to :last of what grows, as pushes would leave them: artifacts under a tag each in library/many, referrers of one subject in
-- library/signed, repositories of one artifact below library/catalog. All name one shared config. Statements end in a line's semicolon.

insert into artifacts.repositories (project_id, path, first_pushed_at)
select p.id, path, now() from projects.projects p, unnest(array['many', 'signed']) path where p.name_key = 'library'
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
  insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, config_media_type, pushed_by, pushed_at)
  select r.id, w.digest, 'application/vnd.oci.image.manifest.v1+json', 'image', 'IMAGE', w.body, length(w.body), length(w.body) + 2,
         'application/vnd.oci.image.config.v1+json', 'admin', now() - (:last - w.n) * interval '1 second'
    from wanted w, artifacts.repositories r where r.path = 'many'
  returning id, repository_id, digest),
edges as (
  insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
  select id, 0, repository_id, 'config', 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', 'application/vnd.oci.image.config.v1+json', 2 from put)
insert into artifacts.tags (repository_id, name, manifest_id)
select put.repository_id, 't' || lpad(w.n::text, 7, '0'), put.id from put join wanted w using (digest);

insert into artifacts.manifests (repository_id, digest, media_type, artifact_type, kind, payload, payload_bytes, total_bytes, subject_digest, pushed_by)
select r.id, 'sha256:' || encode(sha256(body), 'hex'), 'application/vnd.oci.image.manifest.v1+json', 'application/vnd.example', 'image', body,
       length(body), length(body), 'sha256:' || repeat('5', 64), 'admin'
  from generate_series(:first, :last) n, lateral (select convert_to('{"referrer":"' || n || '"}', 'UTF8') as body) b, artifacts.repositories r
 where r.path = 'signed';

with put as (
  insert into artifacts.repositories (project_id, path, first_pushed_at)
  select p.id, 'catalog/r' || lpad(n::text, 7, '0'), now() from projects.projects p, generate_series(:first, :last) n where p.name_key = 'library'
  returning id)
insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
select id, 'sha256:' || encode(sha256('{}'), 'hex'), 'application/vnd.oci.image.manifest.v1+json', 'image', '{}', 2, 2 from put;

insert into projects.quota_deltas (project_id, delta_bytes, reason)
select p.id, 1000 * (:last - :first + 1)::bigint, 'seeded' from projects.projects p where p.name_key = 'library';

vacuum analyze;
