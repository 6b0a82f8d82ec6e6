"""Counting, and telling OpenTelemetry what was counted."""
