"""Durable file writes and the database: acknowledged means on disk."""
