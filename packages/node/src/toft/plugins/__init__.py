"""Manifests, environments, instances and their supervision."""
