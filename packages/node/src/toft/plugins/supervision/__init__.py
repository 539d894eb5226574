"""Workers kept alive: starting, calling, cancelling, dying, replacing."""
