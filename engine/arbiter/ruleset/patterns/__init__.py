"""Triggers: reading what authors write of patterns over time."""
