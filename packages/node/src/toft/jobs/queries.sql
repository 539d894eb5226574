-- name: add_job
INSERT INTO jobs (
    seq, id, plugin, instance, action, kind, state, priority, rank, waiting, held, queued_q, due_q, deadline_q,
    submitted_at, ready_at, deadline_at, timeout_s, idempotent, idempotency_key, fingerprint, retry, sequence,
    step, arguments_blob, arguments)
VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: add_event
INSERT INTO events (cursor, at, type, job, attempt, sequence, data) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: add_edge
INSERT OR IGNORE INTO edges (parent, child, needs) VALUES (?, ?, ?);

-- name: add_blob_use
INSERT OR IGNORE INTO blob_uses (digest, job) VALUES (?, ?);

-- name: find_keys
SELECT idempotency_key, id, state, fingerprint FROM jobs
WHERE idempotency_key IN (SELECT value FROM json_each(?));

-- name: find_parents
SELECT id, seq, state FROM jobs WHERE id IN (SELECT value FROM json_each(?));

-- name: next_ready
SELECT rank, seq, queued_q, id, attempt FROM jobs INDEXED BY jobs_ready
WHERE state = 'pending' AND waiting = 0 AND held = 0 AND instance = ?
ORDER BY rank, seq LIMIT 1;

-- name: claim_candidates
SELECT seq, id, attempt, plugin, instance, action, arguments, arguments_blob, timeout_s, deadline_q, retry,
    idempotent, sequence, step, kind, tries_from, priority, rank, queued_q
FROM jobs INDEXED BY jobs_ready
WHERE state = 'pending' AND waiting = 0 AND held = 0 AND instance = ?
    AND (deadline_q IS NULL OR deadline_q > ?)
ORDER BY rank, seq LIMIT ?;

-- name: claim_jobs
UPDATE jobs SET state = 'running', attempt = attempt + 1, started_at = ?, progress = NULL, message = NULL,
    block_reason = NULL
WHERE seq IN (SELECT value FROM json_each(?));

-- name: add_attempt
INSERT INTO attempts (job, attempt, state, started_at, finished_at, because, error, usage, lane)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: finish_job
WITH ended (state, at, q, error, usage, result_bytes, result_blob, result, seq, attempt) AS (
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
)
UPDATE jobs SET state = ended.state, finished_at = ended.at, finished_q = ended.q, error = ended.error,
    usage = ended.usage, result_bytes = ended.result_bytes, result_blob = ended.result_blob, result = ended.result
FROM ended
WHERE jobs.seq = ended.seq AND jobs.attempt = ended.attempt AND jobs.state = 'running';

-- name: requeue_job
UPDATE jobs SET state = 'pending', started_at = NULL, finished_at = NULL, finished_q = NULL, rank = ?, queued_q = ?, held = ?,
    due_q = ?, ready_at = ?, error = ?, tries_from = ?, cancel_requested_at = NULL, deadline_q = ?,
    deadline_at = ?, progress = NULL, message = NULL, block_reason = NULL
WHERE seq = ?;

-- name: end_pending
UPDATE jobs SET state = ?, finished_at = ?, finished_q = ?, error = ?, result_bytes = ?, result_blob = ?, result = ?,
    waiting = 0, held = 0, block_reason = NULL
WHERE seq = ? AND state = 'pending';

-- name: request_cancel
UPDATE jobs SET cancel_requested_at = ? WHERE seq = ?;

-- name: move_job
UPDATE jobs SET priority = ?, rank = ? WHERE seq = ?;

-- name: rank_before
SELECT rank, seq, id, attempt, priority, sequence FROM jobs INDEXED BY jobs_ready
WHERE state = 'pending' AND waiting = 0 AND held = 0 AND instance = ? AND (rank, seq) < (?, ?) AND seq <> ?
ORDER BY rank DESC, seq DESC LIMIT ?;

-- name: rank_last
SELECT rank FROM jobs INDEXED BY jobs_ready
WHERE state = 'pending' AND waiting = 0 AND held = 0 AND instance = ?
ORDER BY rank DESC, seq DESC LIMIT 1;

-- name: due_jobs
SELECT seq, id, attempt, instance, sequence, waiting FROM jobs INDEXED BY jobs_delayed
WHERE state = 'pending' AND held = 1 AND due_q <= :q
UNION ALL
SELECT seq, id, attempt, instance, sequence, waiting FROM jobs INDEXED BY jobs_scheduled
WHERE state = 'pending' AND held = 2 AND ready_at <= :at
LIMIT :most;

-- name: release_job
UPDATE jobs SET held = 0, block_reason = NULL WHERE seq = ?;

-- name: late_jobs
SELECT seq, id, attempt, instance, sequence, waiting, held FROM jobs INDEXED BY jobs_deadlines
WHERE state = 'pending' AND deadline_q IS NOT NULL AND deadline_q <= ?
LIMIT ?;

-- name: next_delayed
SELECT due_q FROM jobs INDEXED BY jobs_delayed WHERE state = 'pending' AND held = 1 ORDER BY due_q LIMIT 1;

-- name: next_scheduled
SELECT ready_at FROM jobs INDEXED BY jobs_scheduled
WHERE state = 'pending' AND held = 2 ORDER BY ready_at LIMIT 1;

-- name: next_deadline
SELECT deadline_q FROM jobs INDEXED BY jobs_deadlines
WHERE state = 'pending' AND deadline_q IS NOT NULL ORDER BY deadline_q LIMIT 1;

-- name: take_edges
DELETE FROM edges WHERE parent = ? RETURNING child, needs;

-- name: count_edges
SELECT count(*) FROM (SELECT 1 FROM edges LIMIT 1);

-- name: has_edges
SELECT parent FROM edges WHERE parent IN (SELECT value FROM json_each(?)) GROUP BY parent;

-- name: lessen_waiting
UPDATE jobs SET waiting = waiting - 1, block_reason = NULL WHERE seq = ? AND state = 'pending' AND waiting > 0;

-- name: note_progress
UPDATE jobs SET progress = coalesce(?, progress), message = coalesce(?, message)
WHERE seq = ? AND attempt = ? AND state = 'running';

-- name: note_block
UPDATE jobs SET block_reason = ? WHERE seq = ? AND state = 'pending';

-- name: find_job
SELECT * FROM job_rows WHERE id = ?;

-- name: find_job_by_seq
SELECT * FROM job_rows WHERE seq = ?;

-- name: find_jobs
SELECT * FROM job_rows WHERE id IN (SELECT value FROM json_each(?));

-- name: newest_seqs
SELECT seq FROM jobs WHERE seq > :after AND seq < :before ORDER BY seq DESC;

-- name: facet_seqs
SELECT seq FROM jobs INDEXED BY jobs_facets
WHERE state <> 'running' AND plugin = :plugin AND instance = :instance AND state = :state
    AND error_code = :error_code AND seq > :after AND seq < :before
ORDER BY seq DESC;

-- name: next_facet
SELECT * FROM (SELECT plugin, instance, state, error_code FROM jobs INDEXED BY jobs_facets
    WHERE state <> 'running' AND plugin = :plugin AND instance = :instance AND state = :state AND error_code > :error_code
    ORDER BY error_code LIMIT 1)
UNION ALL
SELECT * FROM (SELECT plugin, instance, state, error_code FROM jobs INDEXED BY jobs_facets
    WHERE state <> 'running' AND plugin = :plugin AND instance = :instance AND state > :state
    ORDER BY state, error_code LIMIT 1)
UNION ALL
SELECT * FROM (SELECT plugin, instance, state, error_code FROM jobs INDEXED BY jobs_facets
    WHERE state <> 'running' AND plugin = :plugin AND instance > :instance
    ORDER BY instance, state, error_code LIMIT 1)
UNION ALL
SELECT * FROM (SELECT plugin, instance, state, error_code FROM jobs INDEXED BY jobs_facets
    WHERE state <> 'running' AND plugin > :plugin
    ORDER BY plugin, instance, state, error_code LIMIT 1)
LIMIT 1;

-- name: running_facets
SELECT seq, plugin, instance, state, error_code FROM jobs INDEXED BY jobs_running
WHERE state = 'running' AND seq > :after AND seq < :before ORDER BY seq DESC;

-- name: sequence_facets
SELECT seq, plugin, instance, state, error_code FROM jobs INDEXED BY jobs_by_sequence
WHERE sequence = :sequence AND seq > :after AND seq < :before ORDER BY seq DESC;

-- name: first_from
SELECT seq, submitted_at FROM jobs WHERE seq >= ? ORDER BY seq LIMIT 1;

-- name: seq_bounds
SELECT coalesce((SELECT min(seq) FROM jobs), 0), coalesce((SELECT max(seq) FROM jobs), 0);

-- name: find_by_seqs
SELECT * FROM job_rows WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq DESC;

-- name: all_running
SELECT * FROM job_rows WHERE state = 'running' ORDER BY seq;

-- name: list_attempts
SELECT attempt, state, started_at, finished_at, because, error, usage, lane FROM attempts
WHERE job = (SELECT seq FROM jobs WHERE id = :id)
UNION ALL
SELECT attempt, state, started_at, NULL, NULL, NULL, NULL, NULL FROM jobs WHERE id = :id AND state = 'running'
ORDER BY attempt;

-- name: list_events
SELECT e.cursor, e.at, e.type, j.id, e.attempt, e.sequence, e.data
FROM events AS e LEFT JOIN jobs AS j ON j.seq = e.job
WHERE e.cursor > :after AND (
    :plugins IS NULL OR j.plugin IN (SELECT value FROM json_each(:plugins))
    OR (e.job IS NULL AND e.sequence IN (SELECT id FROM sequences) AND NOT EXISTS (
        SELECT plugin FROM sequence_plugins WHERE sequence = e.sequence EXCEPT SELECT value FROM json_each(:plugins)
    ))
)
ORDER BY e.cursor LIMIT :limit;

-- name: list_job_events
SELECT e.cursor, e.at, e.type, j.id, e.attempt, e.sequence, e.data
FROM jobs AS j JOIN events AS e INDEXED BY events_by_job ON e.job = j.seq
WHERE j.id = :job AND e.cursor > :after
    AND (:plugins IS NULL OR j.plugin IN (SELECT value FROM json_each(:plugins)))
ORDER BY e.cursor LIMIT :limit;

-- name: list_sequence_events
SELECT e.cursor, e.at, e.type, j.id, e.attempt, e.sequence, e.data
FROM events AS e INDEXED BY events_by_sequence LEFT JOIN jobs AS j ON j.seq = e.job
WHERE e.sequence = :sequence AND e.cursor > :after AND (
    :plugins IS NULL OR j.plugin IN (SELECT value FROM json_each(:plugins))
    OR (e.job IS NULL AND :sequence IN (SELECT id FROM sequences) AND NOT EXISTS (
        SELECT plugin FROM sequence_plugins WHERE sequence = :sequence EXCEPT SELECT value FROM json_each(:plugins)
    ))
)
ORDER BY e.cursor LIMIT :limit;

-- name: list_snapshots
SELECT e.at, e.data FROM jobs AS j JOIN events AS e INDEXED BY events_by_job ON e.job = j.seq
WHERE j.id = ? AND e.type = 'snapshot' ORDER BY e.cursor DESC LIMIT ?;

-- name: count_states
SELECT state, count(*) FROM jobs WHERE state IN ('failed', 'cancelled', 'interrupted') GROUP BY state;

-- name: count_ended
SELECT count(*) FROM jobs INDEXED BY jobs_ended WHERE finished_q IS NOT NULL;

-- name: count_all
SELECT count(*) FROM jobs;

-- name: count_ready
SELECT instance, count(*) FROM jobs INDEXED BY jobs_ready
WHERE state = 'pending' AND waiting = 0 AND held = 0 GROUP BY instance;

-- name: highest
SELECT coalesce((SELECT max(seq) FROM jobs), 0), coalesce((SELECT max(cursor) FROM events), 0),
    coalesce((SELECT value FROM queue_numbers WHERE name = 'seq'), 0),
    coalesce((SELECT value FROM queue_numbers WHERE name = 'cursor'), 0),
    coalesce((SELECT queued_q FROM jobs ORDER BY seq DESC LIMIT 1), 0),
    coalesce((SELECT rank + priority * 60000000000 FROM jobs ORDER BY seq DESC LIMIT 1), 0);

-- name: oldest_ended
SELECT seq, state FROM jobs INDEXED BY jobs_ended
WHERE finished_q IS NOT NULL AND NOT EXISTS (SELECT 1 FROM edges WHERE parent = jobs.seq)
    AND NOT EXISTS (SELECT 1 FROM sequences WHERE id = jobs.sequence AND finished_at IS NULL)
ORDER BY finished_q, seq LIMIT ?;

-- name: too_old
SELECT seq, state FROM jobs INDEXED BY jobs_ended
WHERE finished_q IS NOT NULL AND finished_q < ? AND finished_at < ?
    AND NOT EXISTS (SELECT 1 FROM edges WHERE parent = jobs.seq)
    AND NOT EXISTS (SELECT 1 FROM sequences WHERE id = jobs.sequence AND finished_at IS NULL)
ORDER BY finished_q, seq LIMIT ?;

-- name: blobs_of_jobs
SELECT DISTINCT digest FROM blob_uses WHERE job IN (SELECT value FROM json_each(?));

-- name: used_blobs
SELECT DISTINCT digest FROM blob_uses WHERE digest IN (SELECT value FROM json_each(?));

-- name: all_blobs
SELECT DISTINCT digest FROM blob_uses;

-- name: forget_events
DELETE FROM events WHERE job IN (SELECT value FROM json_each(?));

-- name: forget_jobs
DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?));

-- name: put_number
INSERT INTO queue_numbers (name, value) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value);
