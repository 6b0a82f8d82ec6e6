"""Generated source made into functions.

Law: the one place that executes text, all of it written by this package from checked input. Tracebacks and debuggers
show the source as long as a function made of it lives. A generated function never refers to itself, not even through
its globals, so that a snapshot that goes is freed by counting references, without a collector's pause. Equal sources
are compiled once: a reload makes most functions anew, and compiling holds the interpreter for milliseconds.
"""

from __future__ import annotations

import linecache
import textwrap
import threading
import weakref
import zlib
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType

_living: Counter[str] = Counter()  # how many functions of a source there are, by the name of the source
_lock = threading.RLock()  # a function may go, and be counted, while another is counted


def function_of(definitions: Sequence[str], names: dict[str, Any], label: str) -> Callable[..., Any]:
    """The last of `definitions`, each the source of one function, which may call those before it.

    `names` are its globals; it is the function's from now on. `label` names the source in tracebacks.
    """
    entry = definitions[-1].removeprefix("def ").partition("(")[0]
    body = textwrap.indent("\n".join(definitions), "    ")
    source = f"def make():\n{body}\n    return {entry}\n"
    filename = f"<arbiter {label} {zlib.crc32(source.encode()):08x}>"
    exec(_compiled(source, filename), names)  # noqa: S102 - see the law
    function: Callable[..., Any] = names.pop("make")()
    with _lock:
        _living[filename] += 1
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    weakref.finalize(function, _gone, filename).atexit = False
    return function


@lru_cache(maxsize=4_096)
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


def _gone(filename: str) -> None:
    with _lock:
        _living[filename] -= 1
        if not _living[filename]:
            del _living[filename]
            linecache.cache.pop(filename, None)
