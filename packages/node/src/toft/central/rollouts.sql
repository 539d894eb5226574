-- name: insert_rollout
INSERT INTO rollouts (
    id, tenant, document, number, previous, state, rules, salt, attempt, is_emergency, wave, wave_opened_at,
    reason, created_by, message, created_at
) VALUES (
    :id, :tenant, :document, :number, :previous, :state, :rules, :salt, :attempt, :is_emergency, -1, NULL,
    '', :by, :message, :now
)

-- name: change_rollout
-- Only from the state and the wave that whoever asks has seen: what was decided on older rows changes nothing.
UPDATE rollouts SET state = :state, wave = :wave, wave_opened_at = :wave_opened_at, reason = :reason,
    is_emergency = :is_emergency, ended_at = :ended_at
WHERE id = :id AND state = :was_state AND wave = :was_wave RETURNING id

-- name: publish_document
UPDATE documents SET published = :number WHERE id = :document

-- name: put_place
INSERT INTO rollout_nodes (rollout, node, wave, state, reason, detail, etag, offered_at, changed_at)
VALUES (:rollout, :node, :wave, :state, :reason, :detail, :etag, :offered_at, :changed_at)
ON CONFLICT (rollout, node) DO UPDATE SET wave = excluded.wave, state = excluded.state,
    reason = excluded.reason, detail = excluded.detail, etag = excluded.etag,
    offered_at = excluded.offered_at, changed_at = excluded.changed_at

-- name: find_rollout
SELECT * FROM rollouts WHERE id = :id AND tenant = :tenant

-- name: list_rollouts
SELECT * FROM rollouts
WHERE tenant = :tenant AND (:document = '' OR document = :document) AND (:before = '' OR id < :before)
ORDER BY id DESC LIMIT :most

-- name: list_open_rollouts
-- Beside those that are open the last one of each document that reached everybody: some are on their way yet.
SELECT * FROM rollouts r WHERE state IN ('draft', 'running', 'paused') OR (
    state = 'done' AND NOT EXISTS (SELECT 1 FROM rollouts l WHERE l.document = r.document AND l.id > r.id)
) ORDER BY id

-- name: list_places
SELECT * FROM rollout_nodes WHERE rollout = :rollout ORDER BY wave, node

-- name: count_places
SELECT state, count(*) AS nodes FROM rollout_nodes WHERE rollout = :rollout GROUP BY state

-- name: list_rollouts_of_node
SELECT r.*, p.state AS stage, p.reason AS stage_reason, p.detail AS stage_detail, p.wave AS stage_wave,
    p.changed_at AS stage_at
FROM rollout_nodes p JOIN rollouts r ON r.id = p.rollout WHERE p.node = :node ORDER BY r.id DESC LIMIT :most

-- name: list_attempts
SELECT document, number, max(attempt) AS attempt FROM rollouts GROUP BY document, number

-- name: history_since
SELECT node, happened_at, etag, event, data, received_at FROM node_history
WHERE node = :node AND received_at >= :since ORDER BY happened_at

-- name: last_troubles
-- The newest thing that went wrong on each node, and whether a document has proven itself there since: by when it
-- was heard, for the clock of a node may have jumped back between two of them.
SELECT h.node, h.happened_at, h.etag, h.event, h.data, h.received_at, EXISTS (
    SELECT 1 FROM node_history a WHERE a.node = h.node AND a.event = 'applied'
        AND (a.received_at, a.happened_at) > (h.received_at, h.happened_at)
) AS is_over FROM nodes n JOIN node_history h ON h.node = n.id
WHERE n.tenant = :tenant AND (:node = '' OR n.id = :node)
    AND h.event IN ('rolled_back', 'rejected', 'stranded') AND NOT EXISTS (
        SELECT 1 FROM node_history l WHERE l.node = h.node AND l.event IN ('rolled_back', 'rejected', 'stranded')
            AND (l.received_at, l.happened_at) > (h.received_at, h.happened_at)
    )
