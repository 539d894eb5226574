-- What a list of jobs can be narrowed by. A list is merged from the stretches that fit, each in the order of seq, so
-- that every combination of filters costs about its page, however many jobs there are. Jobs that run are few, and
-- left out: their state changes twice.
ALTER TABLE jobs ADD COLUMN error_code TEXT NOT NULL
    GENERATED ALWAYS AS (coalesce(json_extract(error, '$.code'), '')) VIRTUAL;
CREATE INDEX jobs_facets ON jobs (plugin, instance, state, error_code, seq) WHERE state <> 'running';
