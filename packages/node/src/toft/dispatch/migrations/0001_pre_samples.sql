-- How the machine and the lanes were while something ran; old ones are thinned, very old ones go.
CREATE TABLE samples (
    at_ms INTEGER PRIMARY KEY,
    cpu_percent REAL,
    memory_used_bytes INTEGER NOT NULL,
    memory_total_bytes INTEGER NOT NULL,
    lanes_busy INTEGER NOT NULL,
    lanes INTEGER NOT NULL,
    queue_pending INTEGER NOT NULL,
    queue_running INTEGER NOT NULL,
    -- Resource to [used, total], as JSON.
    gpus TEXT NOT NULL
) STRICT;
