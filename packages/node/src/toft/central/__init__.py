"""Central: who may be a node, and what document each of them is to run. Knows documents, not how a node works."""
