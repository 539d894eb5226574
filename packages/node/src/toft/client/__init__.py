"""Talks to the daemon of a home: finds it, calls it, and gives the words of an embedded node."""
