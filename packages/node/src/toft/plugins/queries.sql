-- name: find_instance
SELECT name, plugin, config, options, enabled, updated_at FROM instances WHERE name = :name;

-- name: list_instances
SELECT name, plugin, config, options, enabled, updated_at FROM instances
WHERE :plugin IS NULL OR plugin = :plugin
ORDER BY name;

-- name: put_instance
INSERT INTO instances (name, plugin, config, options, enabled, updated_at)
VALUES (:name, :plugin, :config, :options, :enabled, :updated_at)
ON CONFLICT (name) DO UPDATE SET
    plugin = excluded.plugin, config = excluded.config, options = excluded.options,
    enabled = excluded.enabled, updated_at = excluded.updated_at;

-- name: remove_instance
DELETE FROM instances WHERE name = :name;

-- name: remove_instances
DELETE FROM instances WHERE plugin = :plugin;
