"""Triggers as they run: a process of its own that reads the log, and writes what follows from it."""
