-- Each push leaves dead rows of an upload behind. They are cleared away as soon as there are a thousand, and not after a share of a table that is empty
-- in between; and the file is not cut short then: a planner that met the table full expects it to be, and looks rows up by their key.
ALTER TABLE "artifacts"."uploads" SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 1000,
    vacuum_truncate = false
);
