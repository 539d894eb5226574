"""Central over HTTP: what nodes ask, and what administrators do."""
