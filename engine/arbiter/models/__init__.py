"""ONNX models: what they say about themselves, their sessions, and scores for rows of inputs.

Law: the serving side only. Nothing here trains or exports (that is `training`), and nothing fetches what a view does
not hold.
"""

from arbiter.models.failure import ModelFailure
from arbiter.models.loader import from_bytes, load_models
from arbiter.models.manifest import Input, Manifest, Output
from arbiter.models.model import Answer, Model

__all__ = ["Answer", "Input", "Manifest", "Model", "ModelFailure", "Output", "from_bytes", "load_models"]
