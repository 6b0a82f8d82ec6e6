"""Caps: how often a subject may be given what, as authors say it, and by what stores and decisions keep to it."""
