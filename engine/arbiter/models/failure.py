"""What is raised when a model cannot answer.

Law: one exception, and nothing else.
"""

from arbiter.errors import ArbiterError


class ModelFailure(ArbiterError):
    """The model could not answer; its outputs are unknown."""
