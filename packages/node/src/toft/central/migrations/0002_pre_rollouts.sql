-- A revision of one document on its way to the nodes, in waves.
CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    document TEXT NOT NULL REFERENCES documents (id),
    number INTEGER NOT NULL,
    previous INTEGER,
    state TEXT NOT NULL CHECK (state IN ('draft', 'running', 'paused', 'aborted', 'done')),
    rules TEXT NOT NULL,
    salt TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    is_emergency INTEGER NOT NULL CHECK (is_emergency IN (0, 1)),
    wave INTEGER NOT NULL,
    wave_opened_at REAL,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL
) STRICT;

-- A document is in one rollout at a time.
CREATE UNIQUE INDEX rollouts_open ON rollouts (document) WHERE state IN ('running', 'paused');

-- What a rollout did to a node: `etag` is what it was offered, `offered_at` since when its words count.
CREATE TABLE rollout_nodes (
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    node TEXT NOT NULL REFERENCES nodes (id),
    wave INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'offered', 'downloaded', 'staged', 'probation', 'applied', 'rolled_back', 'failed', 'skipped'
    )),
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    etag TEXT NOT NULL,
    offered_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    PRIMARY KEY (rollout, node)
) STRICT;

CREATE INDEX rollout_nodes_by_node ON rollout_nodes (node);
