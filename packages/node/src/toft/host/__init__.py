"""Processes, sandboxes, limits and hardware facts: the only room that spawns."""
