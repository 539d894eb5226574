"""The one blocking facade over the asynchronous node, for scripts and the command line."""
