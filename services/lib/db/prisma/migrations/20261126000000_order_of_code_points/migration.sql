-- Lists go in the order of code points, whatever the database sorts by, and only an index of that order spares reading all that a page leaves out.
ALTER TABLE "artifacts"."tags" ALTER COLUMN "name" TYPE TEXT COLLATE "C";
ALTER TABLE "artifacts"."repositories" ALTER COLUMN "path" TYPE TEXT COLLATE "C";
