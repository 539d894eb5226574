-- name: list_peaks
SELECT instance, config_hash, figures FROM peaks ORDER BY instance, config_hash;

-- name: put_peak
INSERT INTO peaks (instance, config_hash, figures) VALUES (:instance, :config_hash, :figures)
ON CONFLICT (instance, config_hash) DO UPDATE SET figures = excluded.figures;

-- name: remove_peak
DELETE FROM peaks WHERE instance = :instance AND config_hash = :config_hash;

-- name: remove_peaks
DELETE FROM peaks WHERE instance = :instance;
