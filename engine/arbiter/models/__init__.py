"""ONNX models: what they say about themselves, their sessions, and scores for rows of inputs.

Law: the serving side only. Nothing here trains or exports (that is `models/train.py`), and nothing here knows where the
values of a row come from: `Model.inputs` says what is wanted and the engine fetches it.
"""

from arbiter.models.loader import from_bytes, load_models
from arbiter.models.manifest import Input, Manifest, Output
from arbiter.models.model import Answer, Model, ModelFailure

__all__ = ["Answer", "Input", "Manifest", "Model", "ModelFailure", "Output", "from_bytes", "load_models"]
