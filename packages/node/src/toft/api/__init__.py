"""The node over HTTP: routes, what crosses them, and the one table from errors to status codes."""
