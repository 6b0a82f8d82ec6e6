"""The configuration: every option once, and where a value of it may come from."""
