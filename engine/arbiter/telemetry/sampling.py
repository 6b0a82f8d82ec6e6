"""Which calls are traced, by OpenTelemetry's own variables.

Law: pure but for chance and the environment. It decides before a span exists, since a span that nobody keeps costs as
much as half a decision. A call is traced when its caller's span is, and of those that have none a ratio.
"""

from __future__ import annotations

import math
import os
import random
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from arbiter.telemetry.exporters import TelemetryError

if TYPE_CHECKING:
    from collections.abc import Callable

# `traceparent` is a version, the trace's id, the parent's id and two digits of flags, of which the last bit counts.
_SAMPLED_DIGIT: Final = 54
_TRACE_ID = slice(19, 35)  # its lower half
_ODD = frozenset("13579bdf")


class Sampling(msgspec.Struct, frozen=True):
    """`ratio` of the calls are traced; with `parent` only those that have no parent, the others as their parent is."""

    ratio: float
    parent: bool = True

    def takes(self, traceparent: str | None, chance: Callable[[], float] = random.random) -> bool:
        """Whether a call with this header is traced; None is no header, and what is none is as good as none."""
        if traceparent is None or len(traceparent) <= _SAMPLED_DIGIT:
            return chance() < self.ratio
        if self.parent:
            return traceparent[_SAMPLED_DIGIT] in _ODD
        try:
            # By the trace's id, so that all services with this ratio choose the same traces.
            return int(traceparent[_TRACE_ID], 16) < TraceIdRatioBased.get_bound_for_rate(self.ratio)
        except ValueError:
            return chance() < self.ratio

    def gap(self, chance: Callable[[], float] = random.random) -> float:
        """How many calls without a parent come until one of them is traced, that one too: as if each were drawn for by
        itself, which costs each a look at chance. Infinity where none is.

        Inverts the geometric distribution (Devroye, Non-Uniform Random Variate Generation, 1986, X.2).
        """
        if not 0 < self.ratio < 1:
            return 1 if self.ratio else math.inf
        return max(1, math.ceil(math.log1p(-chance()) / math.log1p(-self.ratio)))


def chosen(ratio: float) -> Sampling:
    """What OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for; `ratio` holds without the former.

    Raises TelemetryError.
    """
    name = os.environ.get("OTEL_TRACES_SAMPLER", "")
    if not name:
        return Sampling(ratio)
    given = os.environ.get("OTEL_TRACES_SAMPLER_ARG", "")
    kind = name.removeprefix("parentbased_")
    match kind:
        case "always_on":
            ratio = 1.0
        case "always_off":
            ratio = 0.0
        case "traceidratio":
            ratio = _ratio(given) if given else 1.0
        case _:
            raise TelemetryError(
                f"OTEL_TRACES_SAMPLER names `{name}`; known are always_on, always_off and traceidratio, each alone or "
                "after `parentbased_`"
            )
    return Sampling(ratio, name.startswith("parentbased_"))


def _ratio(given: str) -> float:
    try:
        ratio = float(given)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise TelemetryError(f"OTEL_TRACES_SAMPLER_ARG is `{given}`: it must be a ratio between 0 and 1")
    return ratio
