-- name: find_name
SELECT sha256 FROM ingested_names WHERE node = :node AND signal = :signal AND name = :name

-- name: put_name
INSERT INTO ingested_names (node, signal, name, sha256, noted_at) VALUES (:node, :signal, :name, :sha256, :now)
ON CONFLICT (node, signal, name) DO NOTHING RETURNING name

-- name: forget_names
DELETE FROM ingested_names WHERE node = :node AND signal = :signal AND rowid < (
    SELECT min(rowid) FROM (
        SELECT rowid FROM ingested_names WHERE node = :node AND signal = :signal ORDER BY rowid DESC LIMIT :most
    ) AS kept
)

-- name: put_chunk
INSERT INTO ingested (node, signal, size_bytes, row_count, received_at, data)
VALUES (:node, :signal, :size_bytes, :row_count, :now, :data)

-- name: count_bytes
SELECT coalesce(sum(size_bytes), 0) AS held FROM ingested WHERE node = :node AND signal = :signal

-- name: forget_chunks
DELETE FROM ingested WHERE node = :node AND signal = :signal AND rowid IN (
    SELECT id FROM (
        SELECT rowid AS id, sum(size_bytes) OVER (ORDER BY rowid DESC) AS total,
            row_number() OVER (ORDER BY rowid DESC) AS place
        FROM ingested WHERE node = :node AND signal = :signal
    ) AS every WHERE total > :most AND place > 1
)

-- name: list_back
SELECT rowid AS id, received_at, data FROM ingested
WHERE node = :node AND signal = :signal AND rowid <= :place ORDER BY rowid DESC LIMIT :most

-- name: list_on
SELECT rowid AS id, received_at, data FROM ingested
WHERE node = :node AND signal = :signal AND rowid >= :place ORDER BY rowid LIMIT :most
