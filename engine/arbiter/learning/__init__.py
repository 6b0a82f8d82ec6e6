"""What outcomes say: how good scores were, and how good a policy would have been.

Law: NumPy alone, so that whatever serves or watches may use it.
"""
