"""Measures this machine: what a bare loop can do, what toft does with it, and what others do."""
