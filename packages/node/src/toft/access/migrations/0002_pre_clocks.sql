-- expired_at: when it was seen to have expired; that stays, though the clock be set back afterwards.
-- seen_at: a moment of its life that has been, so that no restart with a clock that is behind prolongs it.
ALTER TABLE access_tokens ADD COLUMN expired_at REAL;
ALTER TABLE access_tokens ADD COLUMN seen_at REAL;
