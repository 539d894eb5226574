"""The node's side of its configuration: documents, generations in slots, probation, and the way back."""
