-- name: list_schedules
SELECT name, timetable, done_at, job, submitted, skipped, missed FROM schedules ORDER BY name

-- name: find_schedule
SELECT name, timetable, done_at, job, submitted, skipped, missed FROM schedules WHERE name = ?

-- name: keep_schedules
DELETE FROM schedules WHERE name NOT IN (SELECT value FROM json_each(?))

-- name: begin_schedule
INSERT INTO schedules (name, timetable, done_at) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET timetable = excluded.timetable, done_at = excluded.done_at
WHERE timetable <> excluded.timetable

-- name: set_back_schedule
UPDATE schedules SET done_at = ? WHERE name = ? AND done_at > ?

-- name: turn_schedule
UPDATE schedules SET done_at = ?, missed = missed + ?, job = ?, submitted = submitted + 1 WHERE name = ?

-- name: skip_schedule
UPDATE schedules SET done_at = ?, missed = missed + ?, skipped = skipped + 1 WHERE name = ?
