"""The node as a process of its own: one per home, asked over a socket, ended without losing work."""
