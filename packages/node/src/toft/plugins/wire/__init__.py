"""The host's end of the socket to a worker: frames, calls, streams, bulk segments."""
