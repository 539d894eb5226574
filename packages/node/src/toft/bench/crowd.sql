-- A million jobs of the past and a few that wait for what never comes, as fast as they can be written: many plugins, every state, errors.

-- name: rules
SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'jobs';

-- name: fill
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
drawn AS (
    SELECT n, (n / 7) % 10 AS plugin, (n * 104729) % 1000 AS luck, :now - (:count - n) * 0.25 AS at FROM numbers
),
shaped AS (
    SELECT n, plugin, at, luck, CASE
        WHEN luck < 900 THEN 'completed' WHEN luck < 950 THEN 'failed'
        WHEN luck < 960 THEN 'cancelled' WHEN luck < 962 THEN 'interrupted' ELSE 'pending'
    END AS state FROM drawn
)
INSERT INTO jobs (
    seq, id, plugin, instance, action, kind, state, attempt, priority, rank, waiting, queued_q, submitted_at,
    started_at, finished_at, finished_q, error, result_bytes, result, arguments
)
SELECT
    n, printf('job_01J%019d', n) || '0000', 'crowd-' || plugin, 'crowd-' || plugin || '-' || (luck % 3), 'execute',
    'call', state, state <> 'pending', 0, n, state = 'pending', 0.0, at,
    CASE WHEN state <> 'pending' THEN at + 0.1 END, CASE WHEN state <> 'pending' THEN at + 0.2 END,
    CASE WHEN state <> 'pending' THEN 0.0 END,
    CASE WHEN state = 'failed' THEN json_object(
        'code', CASE luck % 3 WHEN 0 THEN 'plugin.user_input' WHEN 1 THEN 'worker.died' ELSE 'job.timeout' END,
        'message', 'it did not work'
    ) END,
    CASE WHEN state = 'completed' THEN 4 END, CASE WHEN state = 'completed' THEN X'6e756c6c' END, X'7b7d'
FROM shaped;
