"""Central: who may be a node, and which document each is to run; knows documents, not how a node works."""
