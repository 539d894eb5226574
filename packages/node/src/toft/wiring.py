"""Reads settings, picks implementations, opens in order, closes in reverse; nobody else constructs them."""
