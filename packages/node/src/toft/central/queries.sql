-- name: insert_tenant
INSERT INTO tenants (id, created_at) VALUES (:id, :now) ON CONFLICT (id) DO NOTHING RETURNING id

-- name: list_tenants
SELECT id, counter, created_at FROM tenants ORDER BY id

-- name: count_up
UPDATE tenants SET counter = counter + 1 WHERE id = :tenant RETURNING counter

-- name: put_group
INSERT INTO node_groups (tenant, name, selector, priority, created_at)
VALUES (:tenant, :name, :selector, :priority, :now)
ON CONFLICT (tenant, name) DO UPDATE SET selector = excluded.selector, priority = excluded.priority

-- name: delete_group
DELETE FROM node_groups WHERE tenant = :tenant AND name = :name AND NOT EXISTS (
    SELECT 1 FROM documents WHERE tenant = :tenant AND scope = 'group' AND target = :name
) RETURNING name

-- name: find_group
SELECT name FROM node_groups WHERE tenant = :tenant AND name = :name

-- name: list_groups
SELECT tenant, name, selector, priority, created_at FROM node_groups ORDER BY tenant, priority DESC, name

-- name: insert_token
INSERT INTO join_tokens (
    id, tenant, sha256, node_group, labels, max_uses, needs_approval, created_by, created_at, expires_at
) VALUES (
    :id, :tenant, :sha256, :node_group, :labels, :max_uses, :needs_approval, :created_by, :created_at, :expires_at
)

-- name: find_token
SELECT * FROM join_tokens WHERE id = :id

-- name: list_tokens
SELECT * FROM join_tokens WHERE tenant = :tenant ORDER BY created_at, id

-- name: use_token
UPDATE join_tokens SET uses = uses + 1
WHERE id = :id AND uses < max_uses AND revoked_at IS NULL AND expires_at > :now RETURNING uses

-- name: revoke_token
UPDATE join_tokens SET revoked_at = :now WHERE tenant = :tenant AND id = :id AND revoked_at IS NULL

-- name: forget_tokens
DELETE FROM join_tokens WHERE expires_at < :before

-- name: insert_node
INSERT INTO nodes (
    id, tenant, name, labels, public_key, state, join_token, assigned_group,
    hostname, os, agent_version, machine_id_hash, created_at
) VALUES (
    :id, :tenant, :name, :labels, :public_key, :state, :join_token, :assigned_group,
    :hostname, :os, :agent_version, :machine_id_hash, :created_at
)

-- name: find_node_by_key
SELECT * FROM nodes WHERE public_key = :public_key

-- name: list_nodes
SELECT * FROM nodes ORDER BY id

-- name: rejoin_node
UPDATE nodes SET join_token = :join_token, assigned_group = :assigned_group, hostname = :hostname, os = :os,
    agent_version = :agent_version, machine_id_hash = :machine_id_hash
WHERE id = :id

-- name: set_state
UPDATE nodes SET state = :state WHERE id = :id AND state <> 'revoked' RETURNING id

-- name: set_labels
UPDATE nodes SET labels = :labels, name = :name, assigned_group = :assigned_group WHERE id = :id

-- name: set_pinned
UPDATE nodes SET pinned = :pinned WHERE id = :id

-- name: count_attempt
UPDATE nodes SET attempt = attempt + 1 WHERE id = :id RETURNING attempt

-- name: set_key
UPDATE nodes SET public_key = :public_key WHERE id = :id

-- name: note_seen
UPDATE nodes SET last_seen_at = :last_seen_at, asked_etag = :asked_etag WHERE id = :id

-- name: note_offer
UPDATE nodes SET offered_etag = :etag, offered_at = :now WHERE id = :node

-- name: note_report
UPDATE nodes SET boot_nonce = :boot_nonce, seq = :seq, agent_version = :agent_version, os = :os,
    restored_at = :restored_at
WHERE id = :node

-- name: insert_credential
INSERT INTO node_credentials (sha256, node, issued_at, expires_at) VALUES (:sha256, :node, :now, :expires_at)

-- name: shorten_credentials
UPDATE node_credentials SET expires_at = :until WHERE node = :node AND expires_at > :until

-- name: delete_credentials
DELETE FROM node_credentials WHERE node = :node

-- name: forget_credentials
DELETE FROM node_credentials WHERE expires_at < :before

-- name: forget_ended
DELETE FROM node_credentials WHERE node = :node AND expires_at < :now

-- name: last_credential
SELECT max(expires_at) AS expires_at FROM node_credentials WHERE node = :node

-- name: list_credentials
SELECT sha256, node, issued_at, expires_at FROM node_credentials WHERE expires_at > :now

-- name: insert_nonce
INSERT INTO node_nonces (node, nonce, noted_at) VALUES (:node, :nonce, :now) ON CONFLICT (node, nonce) DO NOTHING
RETURNING nonce

-- name: forget_nonces
DELETE FROM node_nonces WHERE noted_at < :before

-- name: insert_document
INSERT INTO documents (id, tenant, scope, target, created_at) VALUES (:id, :tenant, :scope, :target, :now)

-- name: find_document
SELECT id FROM documents WHERE tenant = :tenant AND scope = :scope AND target = :target

-- name: list_documents
SELECT id, tenant, scope, target, published, created_at FROM documents ORDER BY tenant, scope, target

-- name: set_published
UPDATE documents SET published = :number WHERE id = :document

-- name: insert_revision
INSERT INTO revisions (tenant, number, document, layer, sha256, author, message, created_at)
VALUES (:tenant, :number, :document, :layer, :sha256, :author, :message, :now)

-- name: newest_revision
SELECT number FROM revisions WHERE document = :document ORDER BY number DESC LIMIT 1

-- name: find_revision
SELECT * FROM revisions WHERE document = :document AND number = :number

-- name: list_revisions
SELECT number, sha256, author, message, created_at FROM revisions
WHERE document = :document ORDER BY number DESC LIMIT :most

-- name: list_published
SELECT r.document, r.number, r.layer FROM revisions r
JOIN documents d ON d.id = r.document AND d.published = r.number

-- name: put_served
INSERT INTO served (tenant, sha256, layers, revision, data, created_at)
VALUES (:tenant, :sha256, :layers, :revision, :data, :now) ON CONFLICT (tenant, sha256) DO NOTHING

-- name: find_served
SELECT sha256, layers, revision, data FROM served WHERE tenant = :tenant AND sha256 = :sha256

-- name: put_signature
INSERT INTO document_signatures (tenant, sha256, key_id, signature, added_at)
VALUES (:tenant, :sha256, :key_id, :signature, :now)
ON CONFLICT (tenant, sha256, key_id) DO UPDATE SET signature = excluded.signature

-- name: list_signatures
SELECT key_id, signature FROM document_signatures WHERE tenant = :tenant AND sha256 = :sha256 ORDER BY key_id

-- name: put_offer
INSERT INTO node_offers (node, sha256, offered_at) VALUES (:node, :sha256, :now)
ON CONFLICT (node, sha256) DO UPDATE SET offered_at = excluded.offered_at

-- name: last_offers
SELECT served.revision, served.data FROM node_offers
JOIN served ON served.tenant = :tenant AND served.sha256 = node_offers.sha256
WHERE node_offers.node = :node ORDER BY node_offers.offered_at DESC LIMIT 2

-- name: find_offer
SELECT sha256 FROM node_offers WHERE node = :node AND sha256 = :sha256

-- name: insert_root
INSERT INTO roots (tenant, version, data, signatures, added_at) VALUES (:tenant, :version, :data, :signatures, :now)

-- name: list_roots
SELECT tenant, version, data, signatures FROM roots ORDER BY tenant, version

-- name: insert_report
INSERT INTO node_reports (node, boot_nonce, seq, data, received_at)
VALUES (:node, :boot_nonce, :seq, :data, :now) ON CONFLICT (node, boot_nonce, seq) DO NOTHING RETURNING seq

-- name: list_reports
SELECT boot_nonce, seq, data, received_at FROM node_reports WHERE node = :node
ORDER BY received_at DESC, seq DESC LIMIT :most

-- name: forget_reports
DELETE FROM node_reports WHERE node = :node AND received_at < (
    SELECT min(received_at) FROM (
        SELECT received_at FROM node_reports WHERE node = :node ORDER BY received_at DESC LIMIT :most
    ) AS kept
)

-- name: find_place
-- The latest of its numbers, and whether a boot is one that it has reported of.
SELECT n.boot_nonce, n.seq, n.restored_at, EXISTS (
    SELECT 1 FROM node_reports r WHERE r.node = n.id AND r.boot_nonce = :boot_nonce
) AS is_known FROM nodes n WHERE n.id = :node

-- name: latest_reports
SELECT r.node, r.data, r.received_at FROM node_reports r
JOIN nodes n ON n.id = r.node AND n.boot_nonce = r.boot_nonce AND n.seq = r.seq

-- name: insert_history
INSERT INTO node_history (node, happened_at, etag, event, data, received_at)
VALUES (:node, :happened_at, :etag, :event, :data, :now)
ON CONFLICT (node, happened_at, etag, event) DO NOTHING

-- name: list_history
SELECT happened_at, etag, event, data, received_at FROM node_history WHERE node = :node
ORDER BY happened_at DESC, received_at DESC LIMIT :most

-- name: forget_history
-- By when it was heard: the clock of a node may have been years ahead for a while.
DELETE FROM node_history WHERE node = :node AND received_at < (
    SELECT min(received_at) FROM (
        SELECT received_at FROM node_history WHERE node = :node ORDER BY received_at DESC LIMIT :most
    ) AS kept
)

-- name: put_effective
INSERT INTO effective_configs (node, sha256, data, received_at) VALUES (:node, :sha256, :data, :now)
ON CONFLICT (node, sha256) DO UPDATE SET
    data = coalesce(excluded.data, effective_configs.data), received_at = excluded.received_at

-- name: find_effective
SELECT sha256, data, received_at FROM effective_configs WHERE node = :node ORDER BY received_at DESC LIMIT 1

-- name: forget_effective
DELETE FROM effective_configs WHERE node = :node AND received_at < (
    SELECT min(received_at) FROM (
        SELECT received_at FROM effective_configs WHERE node = :node ORDER BY received_at DESC LIMIT :most
    ) AS kept
)

-- name: insert_artifact
INSERT INTO artifacts (tenant, sha256, name, version, filename, size_bytes, added_by, added_at)
VALUES (:tenant, :sha256, :name, :version, :filename, :size_bytes, :added_by, :now)
ON CONFLICT (tenant, sha256) DO NOTHING

-- name: find_artifact
SELECT * FROM artifacts WHERE tenant = :tenant AND sha256 = :sha256

-- name: list_artifacts
SELECT * FROM artifacts WHERE tenant = :tenant ORDER BY name, version, sha256

-- name: last_audited
SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1

-- name: insert_audit
INSERT INTO audit (seq, happened_at, tenant, actor, action, subject, details, previous, sha256)
VALUES (:seq, :happened_at, :tenant, :actor, :action, :subject, :details, :previous, :sha256)

-- name: list_audit
SELECT * FROM audit WHERE seq < :before AND (tenant = :tenant OR :tenant = '*') ORDER BY seq DESC LIMIT :most

-- name: walk_audit
SELECT * FROM audit WHERE seq > :after ORDER BY seq LIMIT :most
