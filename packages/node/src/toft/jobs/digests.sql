-- What a story needs of the events of jobs: each turn as it is, reports and measurements of an attempt as one.

-- name: digest
WITH wanted AS MATERIALIZED (
    SELECT j.seq, j.id FROM json_each(:jobs) AS w JOIN jobs AS j ON j.id = w.value
),
peaks AS (
    SELECT p.seq, p.attempt, json_group_object(p.key, p.most) AS data
    FROM (
        SELECT w.seq, e.attempt, s.key, max(s.value) AS most
        FROM wanted AS w JOIN events AS e INDEXED BY events_by_job ON e.job = w.seq, json_each(e.data) AS s
        WHERE e.type = 'snapshot' AND s.type IN ('integer', 'real')
        GROUP BY w.seq, e.attempt, s.key
    ) AS p
    GROUP BY p.seq, p.attempt
)
SELECT e.cursor, e.at, e.type, w.id, e.attempt, e.sequence, e.data, 0 AS reports
FROM wanted AS w JOIN events AS e INDEXED BY events_by_job ON e.job = w.seq
WHERE e.type NOT IN ('progress', 'snapshot')
UNION ALL
SELECT max(e.cursor), e.at, e.type, w.id, e.attempt, e.sequence, e.data, count(*)
FROM wanted AS w JOIN events AS e INDEXED BY events_by_job ON e.job = w.seq
WHERE e.type = 'progress' GROUP BY w.seq, e.attempt
UNION ALL
SELECT max(e.cursor), e.at, e.type, w.id, e.attempt, e.sequence, json_patch(e.data, coalesce(p.data, '{}')), 0
FROM wanted AS w JOIN events AS e INDEXED BY events_by_job ON e.job = w.seq
    LEFT JOIN peaks AS p ON p.seq = w.seq AND p.attempt = e.attempt
WHERE e.type = 'snapshot' GROUP BY w.seq, e.attempt
ORDER BY 1 DESC LIMIT :most;

-- name: own_turns
SELECT cursor, at, type, NULL, attempt, sequence, data, 0 FROM events INDEXED BY events_by_sequence
WHERE sequence = :sequence AND job IS NULL ORDER BY cursor DESC LIMIT :most;

-- name: busy_last
SELECT j.id, max(t.cursor) AS last, min(t.cursor) AS first FROM (
    SELECT cursor, job FROM events INDEXED BY events_by_sequence
    WHERE sequence = :sequence ORDER BY cursor DESC LIMIT :most
) AS t JOIN jobs AS j ON j.seq = t.job
GROUP BY t.job ORDER BY last DESC;

-- name: parts
SELECT CASE WHEN instr(step, '[') THEN substr(step, 1, instr(step, '[') - 1) ELSE step END AS step_id,
    instr(step, '[') > 0 AS is_part,
    CASE WHEN state = 'cancelled' AND json_extract(error, '$.code') = :skipped THEN 'skipped' ELSE state END AS how,
    count(*) AS jobs, max(seq) AS newest, id
FROM jobs INDEXED BY jobs_by_sequence WHERE sequence = :sequence AND step IS NOT NULL
GROUP BY 1, 2, 3;
