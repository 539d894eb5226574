"""Who asks, for what, and whether that is allowed: one decision with a reason, closed by default."""
