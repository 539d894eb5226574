"""toft runs other people's code on machines you own: isolated, durable, undoable, and truthful about it."""

__version__ = "0.1.0"
