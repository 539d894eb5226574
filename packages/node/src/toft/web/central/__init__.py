"""Central's pages: the fleet, a node, documents, rollouts live, and who did what."""
