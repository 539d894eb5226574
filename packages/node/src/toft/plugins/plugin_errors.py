"""The errors a plugin itself raises, for the rooms above; only this room speaks to the SDK."""

from toft_sdk.errors import CancelledError, PluginError, from_dict

__all__ = ["CancelledError", "PluginError", "from_dict"]
