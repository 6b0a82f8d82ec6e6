"""Findings about rule sets that load: what can never happen, what only the id decides, what nothing uses."""
