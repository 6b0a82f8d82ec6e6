"""`arbiter demo`: the whole engine, end to end, on real purchases.

Law: the command and its options; `story` tells, the other modules do.
"""

from pathlib import Path
from typing import Annotated

import typer

Rules = Annotated[
    Path, typer.Option(metavar="DIR", help="The example rules; a copy of them is edited.", exists=True, file_okay=False)
]
Models = Annotated[Path, typer.Option(metavar="DIR", help="The example models.", exists=True, file_okay=False)]
Plot = Annotated[Path, typer.Option(metavar="FILE", help="Where to put the picture; png, svg or pdf.", dir_okay=False)]
Workers = Annotated[int, typer.Option(min=1, max=16, help="The server's worker processes.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer customers and less waiting, for tests.")]


def demo(
    *,
    rules: Rules = Path("rules"),
    models: Models = Path("models"),
    plot: Plot = Path("arbiter-demo.png"),
    workers: Workers = 2,
    quick: Quick = False,
) -> None:
    """Replay 39 weeks of a real shop's purchases, decide for its customers, and change the rules while doing so.

    Everything is real: a server on a free port, gRPC, the public CDNOW record, two models. Ends with 0 only if every
    step happened. Uses temporary copies and changes nothing here but the picture.
    """
    from arbiter.cli.demo.story import Options, tell  # noqa: PLC0415 - loads grpc

    tell(Options(rules=rules, models=models, plot=plot, workers=workers, quick=quick))
