"""`arbiter events consume`: Kafka's topics into a store that no server has open.

Law: turns options into settings, and says what came of them; reading stands in `consumer`.
"""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from arbiter.cli.flags import configured
from arbiter.cli.terminal import FINDINGS, err, out, plural, print_json

if TYPE_CHECKING:
    from arbiter.config.read import Chosen
    from arbiter.serving import ConsumerFigures

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@configured
def consume(chosen: "Chosen", *, as_json: AsJson = False) -> None:
    """Read Kafka's topics to their ends into the store of a server that does not run, with its options.

    `arbiter serve` reads on from there. To see what becomes of messages, give it another `--data` and `--kafka-group`.

    Ends with 1 when a message was no event, or was gone before it was read.
    """
    from arbiter.consumer.catching_up import catch_up  # noqa: PLC0415 - loads much, as do the next
    from arbiter.consumer.process import check_consumer  # noqa: PLC0415
    from arbiter.runtime.settings import Settings  # noqa: PLC0415

    options = chosen.options
    if not options.kafka.brokers:
        raise typer.BadParameter("which topics? Give `kafka.brokers` and `kafka.topics`", param_hint="--kafka-brokers")
    check_consumer(options.kafka)
    settings = msgspec.convert(options, Settings, from_attributes=True)
    with err().status("reading topics") as status:

        def progress(figures: "ConsumerFigures") -> None:
            read = figures.accepted + figures.duplicates + figures.erased + figures.rejected
            status.update(f"{plural(read, 'message')} read, {figures.lag:,} left")

        done = catch_up(settings, options.limits, progress)
    if as_json:
        print_json(done)
    else:
        out().print(
            f"{plural(done.accepted, 'event')} stored, {done.duplicates:,} were there already, {done.erased:,} of "
            f"erased subjects, {done.rejected:,} rejected, {done.missed:,} gone before they were read"
        )
    if done.rejected or done.missed:
        raise typer.Exit(FINDINGS)
