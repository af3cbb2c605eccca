-- Lines that are written together are of a day or two and of few projects: they are gathered once, and both counts are made of what was gathered
-- instead of each line four times. Months before days, as all who count.
CREATE OR REPLACE FUNCTION "events"."count_audit"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  days DATE[];
  projects INTEGER[];
  operations TEXT[];
  resource_types TEXT[];
  lines BIGINT[];
BEGIN
  SELECT array_agg(g.day), array_agg(g.project), array_agg(g.operation), array_agg(g.resource_type), array_agg(g.lines)
    INTO days, projects, operations, resource_types, lines
    FROM (SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, coalesce(e.project_id, 0) AS project, e.operation, e.resource_type,
                 CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END AS lines
            FROM changed e GROUP BY 1, 2, 3, 4) g;
  INSERT INTO events.audit_counts AS c (scope, month, operation, resource_type, entries)
  SELECT s.scope, date_trunc('month', g.day::timestamp)::date, g.operation, g.resource_type, sum(g.lines)
    FROM unnest(days, projects, operations, resource_types, lines) AS g (day, project, operation, resource_type, lines)
         CROSS JOIN LATERAL (VALUES (-1), (g.project)) AS s(scope)
   GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (scope, month, operation, resource_type) DO UPDATE SET entries = c.entries + excluded.entries;
  INSERT INTO events.audit_day_counts AS c (scope, day, operation, resource_type, entries)
  SELECT s.scope, g.day, g.operation, g.resource_type, sum(g.lines)
    FROM unnest(days, projects, operations, resource_types, lines) AS g (day, project, operation, resource_type, lines)
         CROSS JOIN LATERAL (VALUES (-1), (g.project)) AS s(scope)
   GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
  ON CONFLICT (scope, day, operation, resource_type) DO UPDATE SET entries = c.entries + excluded.entries;
  RETURN NULL;
END $$;
