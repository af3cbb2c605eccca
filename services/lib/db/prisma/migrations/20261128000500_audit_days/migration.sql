-- Where lines of the audit log are is remembered of each day while the rows that count its lines stay as they were written (`AuditDays`). A line
-- whose names are replaced changes no count, so its day and month are written anew. In the order of those who count, so that two wait for each other
-- rather than for ever.
CREATE FUNCTION "events"."touch_audit_counts"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  WITH touched AS (
    SELECT c.scope, c.month, c.operation, c.resource_type FROM events.audit_counts c
     WHERE (c.scope, c.month) IN (
       SELECT s.scope, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date
         FROM after e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope))
     ORDER BY 1, 2, 3, 4 FOR UPDATE)
  UPDATE events.audit_counts c SET entries = c.entries FROM touched t
   WHERE (c.scope, c.month, c.operation, c.resource_type) = (t.scope, t.month, t.operation, t.resource_type);
  WITH touched AS (
    SELECT c.scope, c.day, c.operation, c.resource_type FROM events.audit_day_counts c
     WHERE (c.scope, c.day) IN (
       SELECT s.scope, (e.occurred_at AT TIME ZONE 'UTC')::date
         FROM after e CROSS JOIN LATERAL (VALUES (-1), (coalesce(e.project_id, 0))) AS s(scope))
     ORDER BY 1, 2, 3, 4 FOR UPDATE)
  UPDATE events.audit_day_counts c SET entries = c.entries FROM touched t
   WHERE (c.scope, c.day, c.operation, c.resource_type) = (t.scope, t.day, t.operation, t.resource_type);
  RETURN NULL;
END $$;
CREATE TRIGGER "touch_counts" AFTER UPDATE ON "events"."audit_entries"
  REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION "events"."touch_audit_counts"();
