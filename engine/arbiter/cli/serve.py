"""`arbiter serve`: the supervisor and its workers, in the foreground.

Law: turns options into settings; what serving is stands in `runtime` and `server`, what options there are in `config`.
"""

import os
from typing import TYPE_CHECKING

import msgspec

from arbiter.cli.flags import configured

if TYPE_CHECKING:
    from arbiter.config.read import Chosen


@configured
def serve(chosen: "Chosen") -> None:
    """Serve decisions until SIGTERM or Ctrl-C.

    Prints one line when every worker answers. Rules and models are watched: a good change is live within a second, a
    bad one changes nothing and is reported.
    """
    from arbiter.consumer.process import check_consumer, run_consumer  # noqa: PLC0415 - loads much, as do the next
    from arbiter.runtime.keyfiles import check_keys  # noqa: PLC0415
    from arbiter.runtime.logkeeper import check_log  # noqa: PLC0415
    from arbiter.runtime.logs import start_logging  # noqa: PLC0415
    from arbiter.runtime.settings import Settings  # noqa: PLC0415
    from arbiter.runtime.start import supervise  # noqa: PLC0415
    from arbiter.server.app import open_face  # noqa: PLC0415
    from arbiter.server.audit import note_pause  # noqa: PLC0415
    from arbiter.server.exposure import check_start  # noqa: PLC0415
    from arbiter.server.settings import FaceSettings  # noqa: PLC0415
    from arbiter.server.supervision import open_admin  # noqa: PLC0415

    options = chosen.options
    # By name: an option reaches whichever settings have a field for it.
    settings = msgspec.structs.replace(
        msgspec.convert(options, Settings, from_attributes=True),
        workers=options.workers or len(os.sched_getaffinity(0)),
        face=msgspec.convert(options, FaceSettings, from_attributes=True).encode(),
    )
    start_logging(settings.log_level.upper(), "supervisor")
    doors = {"listen": options.listen, "admin": options.admin}
    check_start(doors, options.metrics, options.tls, options.auth)
    if options.kafka.brokers:
        check_consumer(options.kafka)
    check_keys(settings)
    check_log(settings)
    supervise(settings, open_face, open_admin, note_pause, run_consumer if options.kafka.brokers else None)
