"""Stubs that proto/generate.py wrote: edit the protos, not these."""
