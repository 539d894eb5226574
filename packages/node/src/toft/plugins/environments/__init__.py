"""Interpreters and packages a plugin runs in: resolved, built whole or not at all, kept, collected."""
