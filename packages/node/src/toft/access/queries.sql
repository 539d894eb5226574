-- name: list_tokens
SELECT id, name, hash, scopes, created_at, expires_at, revoked_at, last_used_at, expired_at, seen_at
FROM access_tokens ORDER BY rowid

-- name: find_token
SELECT id FROM access_tokens WHERE name = :name AND revoked_at IS NULL

-- name: insert_token
INSERT INTO access_tokens (id, name, hash, scopes, created_at, expires_at)
VALUES (:id, :name, :hash, :scopes, :created_at, :expires_at)

-- name: revoke_token
UPDATE access_tokens SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL

-- name: use_token
UPDATE access_tokens SET last_used_at = :now,
    seen_at = CASE WHEN seen_at > :seen THEN seen_at ELSE :seen END
WHERE id = :id

-- name: expire_token
UPDATE access_tokens SET expired_at = :now WHERE id = :id AND expired_at IS NULL

-- name: forget_tokens
-- Those that ended long ago, and of all others as many of the ended as leave room for one more.
DELETE FROM access_tokens WHERE coalesce(revoked_at, expired_at, expires_at) < :before OR id IN (
    SELECT id FROM access_tokens WHERE coalesce(revoked_at, expired_at) IS NOT NULL
    ORDER BY coalesce(revoked_at, expired_at)
    LIMIT (SELECT CASE WHEN count(*) < :most THEN 0 ELSE count(*) - :most + 1 END FROM access_tokens)
) RETURNING id

-- name: list_declared
SELECT id, expires_at, seen_at, expired_at FROM declared_tokens

-- name: see_declared
INSERT INTO declared_tokens (id, expires_at, seen_at, expired_at) VALUES (:id, :expires_at, :seen, :expired)
ON CONFLICT (id, expires_at) DO UPDATE SET
    seen_at = CASE WHEN declared_tokens.seen_at > :seen THEN declared_tokens.seen_at ELSE :seen END,
    expired_at = coalesce(declared_tokens.expired_at, :expired)

-- name: forget_declared
DELETE FROM declared_tokens WHERE rowid NOT IN (
    SELECT rowid FROM declared_tokens ORDER BY seen_at DESC LIMIT :most
)
