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
