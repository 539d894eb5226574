"""What a plugin is written against: standard library only, Python 3.8 and up, injected by path."""

__version__ = "0.1.0"
