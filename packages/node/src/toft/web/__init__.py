"""Pages over the same verbs as the API: what is seen here is what a script is told, and nothing more."""
