"""Experiments in rule files: who gets which variant of what, as authors declare it."""
