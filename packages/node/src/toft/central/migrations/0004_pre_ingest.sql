-- The names of the last chunks that each node has sent: one that comes again is known, and not kept twice.
CREATE TABLE ingested_names (
    node TEXT NOT NULL REFERENCES nodes (id),
    signal TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    noted_at REAL NOT NULL,
    PRIMARY KEY (node, signal, name)
) STRICT;

-- What was in them: rows as JSON, one in each line, in the order in which they came.
CREATE TABLE ingested (
    node TEXT NOT NULL REFERENCES nodes (id),
    signal TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    row_count INTEGER NOT NULL,
    received_at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE INDEX ingested_by_node ON ingested (node, signal);
