"""Models opened where they cannot hurt before they are opened here.

Law: a model whose files were not judged yet is judged by a child first, see `models.judge`; what became of it is
remembered by its digest, the good and the bad, so that none is judged twice. One thread opens.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from arbiter.errors import AuthorError, Diagnostic
from arbiter.models.judge import Asked, Judge
from arbiter.models.loader import digest_of, from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arbiter.models.loader import Opener
    from arbiter.models.model import Model

# On the clock, for each model: who loads beside calls leaves the processor to these, and so does its child.
PATIENCE_S: Final = 300.0
_MOST: Final = 1000  # verdicts that are remembered, the newest


class Judged:
    """Opens models, with `apart` each in a child before it is in this process."""

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._verdicts: dict[str, tuple[Diagnostic, ...]] = {}

    @contextmanager
    def opening(self) -> Iterator[Opener]:
        """What opens models while the block runs: it raises AuthorError for one that is refused."""
        with closing(Judge(patience=PATIENCE_S)) as judge:

            def open_model(manifest: bytes, onnx: bytes, file: str) -> Model:
                if self._apart:
                    self._check(judge, manifest, onnx, file)
                return from_bytes(manifest, onnx, file=file)

            yield open_model

    def _check(self, judge: Judge, manifest: bytes, onnx: bytes, file: str) -> None:
        digest = digest_of(manifest, onnx)
        found = self._verdicts.get(digest)
        if found is None:
            verdict = judge.verdict(Asked(manifest, onnx, file))
            found = tuple(verdict.diagnostics)
            if verdict.died:
                hint = "do not serve it: train it again, or ask whoever made it"
                found = (Diagnostic(file=file, message=f"the model cannot be opened: {verdict.died}", hint=hint),)
            self._verdicts[digest] = found
            if len(self._verdicts) > _MOST:
                del self._verdicts[next(iter(self._verdicts))]
        if found:
            raise AuthorError(found)
