-- name: add_sequence
INSERT INTO sequences (id, name, mode, priority, state, submitted_at, finished_at, steps, jobs_pending)
VALUES (:id, :name, :mode, :priority, :state, :submitted_at, :finished_at, :steps, :jobs_pending);

-- name: find_sequence
SELECT * FROM sequences WHERE id = ?;

-- name: list_sequences
SELECT * FROM sequences AS s
WHERE (:state IS NULL OR state = :state) AND (:before IS NULL OR number < :before) AND (:plugins IS NULL OR NOT EXISTS (
    SELECT plugin FROM sequence_plugins WHERE sequence = s.id EXCEPT SELECT value FROM json_each(:plugins)
))
ORDER BY number DESC LIMIT :limit;

-- name: put_sequence
UPDATE sequences SET state = :state, started_at = :started_at, finished_at = :finished_at,
    cancel_requested_at = :cancel_requested_at, error = :error, jobs_pending = :jobs_pending,
    jobs_running = :jobs_running, jobs_completed = :jobs_completed, jobs_failed = :jobs_failed,
    jobs_cancelled = :jobs_cancelled, jobs_skipped = :jobs_skipped, jobs_interrupted = :jobs_interrupted
WHERE id = :id;

-- name: changed_members
SELECT seq, step, kind, json_extract(error, '$.code') AS code FROM jobs
WHERE seq IN (SELECT value FROM json_each(?));

-- name: pending_members
SELECT seq, id, attempt, instance, step, kind, waiting, held FROM jobs
WHERE sequence = ? AND state = 'pending' ORDER BY seq;

-- name: running_members
SELECT seq, id, attempt, instance, step, cancel_requested_at FROM jobs
WHERE sequence = ? AND state = 'running' ORDER BY seq;

-- name: count_moving
SELECT count(*) AS moving FROM jobs AS j
WHERE sequence = ? AND state = 'pending' AND NOT EXISTS (
    SELECT 1 FROM edges AS e JOIN jobs AS parent ON parent.seq = e.parent
    WHERE e.child = j.seq AND parent.state IN ('pending', 'running', 'interrupted'));

-- name: newest_members
SELECT j.seq, j.id, j.step, j.kind, j.state, j.attempt, j.instance, j.priority,
    json_extract(j.error, '$.code') AS code
FROM jobs AS j JOIN (SELECT max(seq) AS seq FROM jobs WHERE sequence = ? GROUP BY step) AS newest
    ON newest.seq = j.seq
ORDER BY j.seq;

-- name: find_member
SELECT seq, id, attempt, instance, kind, state, waiting FROM jobs
WHERE sequence = ? AND step = ? ORDER BY seq DESC LIMIT 1;

-- name: copy_job
INSERT INTO jobs (
    seq, id, plugin, instance, action, kind, state, priority, rank, waiting, held, queued_q, submitted_at,
    timeout_s, idempotent, retry, sequence, step, arguments_blob, arguments)
SELECT :seq, :id, plugin, instance, action, kind, 'pending', priority, :rank, :waiting,
    CASE kind WHEN 'map' THEN 3 ELSE 0 END, :q, :at,
    timeout_s, idempotent, retry, sequence, step, arguments_blob, arguments
FROM jobs WHERE seq = :old;

-- name: copy_blob_uses
INSERT OR IGNORE INTO blob_uses (digest, job)
SELECT arguments_blob, :seq FROM jobs WHERE seq = :old AND arguments_blob IS NOT NULL;

-- name: wait_for_parts
UPDATE jobs SET waiting = ?, held = 3 WHERE seq = ?;

-- name: reopen_fan_out
UPDATE jobs SET state = 'pending', finished_at = NULL, finished_q = NULL, error = NULL, held = 3, waiting = :waiting
WHERE seq = :seq AND state = 'failed';

-- name: sequences_of_jobs
SELECT DISTINCT sequence AS id FROM jobs
WHERE seq IN (SELECT value FROM json_each(?)) AND sequence IS NOT NULL;

-- name: forget_sequences
DELETE FROM sequences
WHERE finished_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.sequence = sequences.id)
    AND (id IN (SELECT value FROM json_each(:ids)) OR finished_at < :before)
RETURNING id;

-- name: forget_sequence_events
DELETE FROM events WHERE sequence IN (SELECT value FROM json_each(?)) AND job IS NULL;

-- name: idle_fan_outs
SELECT id FROM jobs WHERE state = 'pending' AND waiting = 0 AND held = 3;

-- name: find_result
SELECT id, state, result_bytes, result_blob, result, json_extract(error, '$.code') AS code FROM jobs
WHERE sequence = ? AND step = ? ORDER BY (state = 'completed') DESC, seq DESC LIMIT 1;

-- name: find_arguments
SELECT arguments, arguments_blob FROM jobs WHERE id = ?;
