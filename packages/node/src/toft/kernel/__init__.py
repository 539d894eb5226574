"""Errors, ids, clock, log and settings: no input or output but reading settings."""
