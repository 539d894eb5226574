-- What was seen of the tokens of documents, so that no restart with a clock that is behind prolongs one.
-- A token that a later document lets last longer begins anew.
CREATE TABLE declared_tokens (
    id TEXT NOT NULL,
    expires_at REAL NOT NULL,
    seen_at REAL NOT NULL,
    expired_at REAL,
    PRIMARY KEY (id, expires_at)
) STRICT;
