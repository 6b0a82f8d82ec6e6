"""Public data sets that the demo, the training and the tests use; fetched when asked for, never shipped.

Law: nothing in the engine imports from here.
"""
