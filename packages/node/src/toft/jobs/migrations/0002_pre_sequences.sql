-- Jobs that belong together. The counts are of the newest job of each step, and follow every change of one in its
-- own transaction.
CREATE TABLE sequences (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    mode TEXT NOT NULL CHECK (mode IN ('fail_fast', 'best_effort')),
    priority INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'interrupted')),
    submitted_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    cancel_requested_at REAL,
    -- Which step decided, and how.
    error TEXT,
    -- The steps as they were submitted: id, plugin, action, needs, whether it is a fan-out.
    steps TEXT NOT NULL,
    jobs_pending INTEGER NOT NULL CHECK (jobs_pending >= 0),
    jobs_running INTEGER NOT NULL DEFAULT 0 CHECK (jobs_running >= 0),
    jobs_completed INTEGER NOT NULL DEFAULT 0 CHECK (jobs_completed >= 0),
    jobs_failed INTEGER NOT NULL DEFAULT 0 CHECK (jobs_failed >= 0),
    jobs_cancelled INTEGER NOT NULL DEFAULT 0 CHECK (jobs_cancelled >= 0),
    jobs_skipped INTEGER NOT NULL DEFAULT 0 CHECK (jobs_skipped >= 0),
    jobs_interrupted INTEGER NOT NULL DEFAULT 0 CHECK (jobs_interrupted >= 0),
    CHECK ((finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled')))
) STRICT;
CREATE INDEX sequences_open ON sequences (id) WHERE finished_at IS NULL;
-- A reference names a step; a fan-out of thousands looks thousands of times.
CREATE INDEX jobs_by_step ON jobs (sequence, step, seq) WHERE sequence IS NOT NULL;
