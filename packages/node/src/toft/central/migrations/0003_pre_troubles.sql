-- What went wrong on each node: few lines among many, looked for whenever somebody looks at a fleet.
CREATE INDEX node_history_troubles ON node_history (node, received_at, happened_at)
WHERE event IN ('rolled_back', 'rejected', 'stranded');
