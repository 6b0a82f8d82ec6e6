"""Work that takes long gives way: whoever waits for the same core runs in the midst of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from arbiter.runtime.quiet import Courtesy

OFFERS = 200  # a tenth of a ms apart or more


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="nothing here can be held to one core")
def test_who_waits_for_the_core_has_it_and_who_keeps_it_is_offered_no_more() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # and so for the process that follows
    spin = "print(1, flush=True)\nwhile True: pass"
    spinning = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)  # noqa: S603 - ourselves
    try:
        assert spinning.stdout is not None
        assert spinning.stdout.readline() == b"1\n"
        courtesy = Courtesy()
        assert not courtesy.ends
        for _ in range(OFFERS):
            began = time.perf_counter()
            while time.perf_counter() - began < 0.0002:
                pass
            courtesy.offer()
        assert courtesy.ends, "nobody else ran when the core was offered, though one waits all the time"
    finally:
        os.sched_setaffinity(0, allowed)
        spinning.kill()
        spinning.communicate()
