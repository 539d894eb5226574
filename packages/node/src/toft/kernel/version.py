"""The version of the node, where every room may read it."""

VERSION = "0.1.0"
