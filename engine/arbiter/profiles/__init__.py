"""Profiles: what is stored of subjects, the log of their events, and the features computed from it.

Law: the only package that imports lmdb. `store.Store` is its face; `features` and `windows` are pure and know no disk.
"""
