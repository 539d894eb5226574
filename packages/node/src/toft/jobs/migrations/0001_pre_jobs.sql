-- Times end in _at (wall clock, for people) or _q (the queue's own clock, which never jumps; for decisions).
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    plugin TEXT NOT NULL,
    instance TEXT NOT NULL,
    action TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('call', 'map')),
    -- Written out: a list of more than two is made into a table for every statement, which costs a tenth of a job.
    state TEXT NOT NULL CHECK (state = 'pending' OR state = 'running' OR state = 'completed'
        OR state = 'failed' OR state = 'cancelled' OR state = 'interrupted'),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    tries_from INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    -- 0: not held; 1: until due_q on the queue's clock; 2: until ready_at on the wall clock;
    -- 3: a fan-out, which no lane runs.
    held INTEGER NOT NULL DEFAULT 0 CHECK (held BETWEEN 0 AND 3),
    queued_q REAL NOT NULL,
    due_q REAL,
    deadline_q REAL,
    submitted_at REAL NOT NULL,
    ready_at REAL,
    started_at REAL,
    finished_at REAL,
    finished_q REAL,
    deadline_at REAL,
    timeout_s REAL,
    idempotent INTEGER NOT NULL DEFAULT 0 CHECK (idempotent IN (0, 1)),
    idempotency_key TEXT,
    fingerprint TEXT,
    retry TEXT,
    sequence TEXT,
    step TEXT,
    cancel_requested_at REAL,
    progress REAL,
    message TEXT,
    block_reason TEXT,
    error TEXT,
    usage TEXT,
    result_bytes INTEGER,
    result_blob TEXT,
    arguments_blob TEXT,
    result BLOB,
    arguments BLOB,
    CHECK ((finished_at IS NULL) = (state = 'pending' OR state = 'running')),
    CHECK ((finished_at IS NULL) = (finished_q IS NULL)),
    CHECK (state <> 'running' OR (attempt > 0 AND started_at IS NOT NULL AND waiting = 0 AND held = 0)),
    CHECK (result_bytes IS NULL OR state = 'completed')
) STRICT;

-- The order in which jobs are claimed: the left edge of an instance's stretch.
CREATE INDEX jobs_ready ON jobs (instance, rank, seq) WHERE state = 'pending' AND waiting = 0 AND held = 0;
CREATE INDEX jobs_delayed ON jobs (due_q) WHERE state = 'pending' AND held = 1;
CREATE INDEX jobs_scheduled ON jobs (ready_at) WHERE state = 'pending' AND held = 2;
CREATE INDEX jobs_deadlines ON jobs (deadline_q) WHERE state = 'pending' AND deadline_q IS NOT NULL;
CREATE INDEX jobs_running ON jobs (seq) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (finished_q, seq) WHERE finished_q IS NOT NULL;
CREATE INDEX jobs_troubled ON jobs (state, seq) WHERE state IN ('failed', 'cancelled', 'interrupted');
CREATE UNIQUE INDEX jobs_by_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_by_sequence ON jobs (sequence, seq) WHERE sequence IS NOT NULL;

-- What is read of a job; its arguments are read only when it is claimed.
CREATE VIEW job_rows AS SELECT
    seq, id, plugin, instance, action, kind, state, attempt, priority, rank, waiting, submitted_at, ready_at,
    started_at, finished_at, timeout_s, deadline_at, idempotent, idempotency_key, retry, progress, message,
    block_reason, result_bytes, result_blob, result, error, usage, sequence, step, cancel_requested_at,
    held, queued_q, deadline_q, tries_from
FROM jobs;

CREATE TRIGGER jobs_transition BEFORE UPDATE OF state ON jobs
WHEN NOT (
    (OLD.state = 'pending' AND (NEW.state = 'running' OR NEW.state = 'cancelled' OR NEW.state = 'failed'
        OR NEW.state = 'completed'))
    OR (OLD.state = 'running' AND (NEW.state = 'completed' OR NEW.state = 'failed' OR NEW.state = 'cancelled'
        OR NEW.state = 'interrupted' OR NEW.state = 'pending'))
    OR (OLD.state = 'interrupted' AND NEW.state = 'pending')
    OR (OLD.state = 'failed' AND NEW.state = 'pending'))
    OR NEW.attempt <> OLD.attempt + (NEW.state = 'running')
    OR (OLD.state = 'pending' AND NEW.state = 'completed' AND NEW.kind <> 'map')
BEGIN SELECT RAISE(ABORT, 'no such transition of a job'); END;

CREATE TRIGGER jobs_begin BEFORE INSERT ON jobs WHEN NEW.state <> 'pending' OR NEW.attempt <> 0
BEGIN SELECT RAISE(ABORT, 'a job begins pending'); END;

-- Attempts that ended; the one that runs is in the job's own row.
CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL CHECK (attempt > 0),
    state TEXT NOT NULL CHECK (
        state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'interrupted'),
    started_at REAL NOT NULL,
    finished_at REAL NOT NULL,
    because TEXT,
    error TEXT,
    usage TEXT,
    lane TEXT,
    PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    cursor INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    type TEXT NOT NULL,
    job INTEGER,
    attempt INTEGER NOT NULL,
    sequence TEXT,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job) WHERE job IS NOT NULL;
CREATE INDEX events_by_sequence ON events (sequence) WHERE sequence IS NOT NULL;

-- Which job waits for which; a row goes when the wait is over.
CREATE TABLE edges (
    parent INTEGER NOT NULL,
    child INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    needs TEXT NOT NULL CHECK (needs IN ('completed', 'ended')),
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX edges_by_child ON edges (child);

CREATE TABLE blob_uses (
    digest TEXT NOT NULL,
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    PRIMARY KEY (digest, job)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_uses_by_job ON blob_uses (job);

-- Numbers that must not go back when the rows that had them are removed.
CREATE TABLE queue_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
