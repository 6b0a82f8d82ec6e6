"""Generated source made into functions.

Law: the one place that executes text, all of it written by this package from checked input. Tracebacks and debuggers
show the source as long as its function lives. A generated function never refers to itself, not even through its
globals, so that a snapshot that goes is freed by counting references, without a collector's pause.
"""

from __future__ import annotations

import itertools
import linecache
import textwrap
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_serial = itertools.count()


def function_of(definitions: Sequence[str], names: dict[str, Any], label: str) -> Callable[[Any], Any]:
    """The last of `definitions`, each the source of one function, which may call those before it.

    `names` are its globals; it is the function's from now on. `label` names the source in tracebacks.
    """
    entry = definitions[-1].removeprefix("def ").partition("(")[0]
    body = textwrap.indent("\n".join(definitions), "    ")
    source = f"def make():\n{body}\n    return {entry}\n"
    filename = f"<arbiter {label} #{next(_serial)}>"
    exec(compile(source, filename, "exec"), names)  # noqa: S102 - see the law
    function: Callable[[Any], Any] = names.pop("make")()
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    weakref.finalize(function, linecache.cache.pop, filename, None).atexit = False
    return function
