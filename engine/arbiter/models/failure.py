"""What is raised when a model cannot answer.

Law: one exception, and the words that it takes from another one.
"""

from arbiter.errors import ArbiterError


class ModelFailure(ArbiterError):
    """The model could not answer; its outputs are unknown."""


def first_line(error: object) -> str:
    """What an error says first, or of what type it is: onnxruntime's go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
