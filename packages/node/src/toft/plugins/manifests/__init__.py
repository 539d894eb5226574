"""What is known of a plugin without running it: manifest, registry, schemas, arguments, configuration."""
