CREATE TABLE instances (
    name TEXT PRIMARY KEY,
    plugin TEXT NOT NULL,
    config TEXT NOT NULL,
    options TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX instances_by_plugin ON instances (plugin);
