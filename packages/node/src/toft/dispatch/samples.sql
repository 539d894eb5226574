-- name: put_sample
INSERT OR REPLACE INTO samples (
    at_ms, cpu_percent, memory_used_bytes, memory_total_bytes, lanes_busy, lanes, queue_pending, queue_running, gpus)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: list_samples
SELECT cast(avg(at_ms) AS INTEGER), avg(cpu_percent), avg(memory_used_bytes), max(memory_total_bytes),
    avg(lanes_busy), max(lanes), avg(queue_pending), avg(queue_running), gpus, max(at_ms)
FROM samples WHERE at_ms >= :since_ms AND at_ms < :until_ms
GROUP BY at_ms / :step_ms ORDER BY at_ms / :step_ms LIMIT :most;

-- name: list_samples_after
SELECT at_ms, cpu_percent, memory_used_bytes, memory_total_bytes, lanes_busy, lanes, queue_pending, queue_running,
    gpus
FROM samples WHERE at_ms >= :from_ms AND at_ms < :until_ms ORDER BY at_ms LIMIT :most;

-- name: forget_samples
DELETE FROM samples WHERE at_ms < :oldest_ms;

-- name: thin_samples
DELETE FROM samples WHERE at_ms < :fine_ms AND at_ms NOT IN (
    SELECT min(at_ms) FROM samples WHERE at_ms < :fine_ms GROUP BY at_ms / :coarse_ms);
