"""Generate the Python stubs of proto/ into engine/, or check that the committed ones are what it would write.

Law: everything about generated code lives here: which protos, which plugins, what the files look like. A stub is never
edited by hand. Run `python proto/generate.py` after changing a proto, and `--check` to lint and compare only.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
ENGINE = ROOT / "engine"
TOOLS = Path(sys.executable).parent
PACKAGE_DOCSTRING = '"""Stubs that proto/generate.py wrote: edit the protos, not these."""\n'


class GenerationError(Exception):
    """A proto does not compile, or breaks a lint rule. The message is what the tool said."""


def sources() -> list[Path]:
    """Return every proto of ours, relative to proto/, sorted."""
    return sorted(path.relative_to(PROTO) for path in PROTO.rglob("*.proto"))


def generate(out: Path) -> list[Path]:
    """Write the stubs of every proto under the folder `out`; return their paths relative to it, sorted.

    Raises GenerationError when a proto does not compile.
    """
    protos = sources()
    # A file without a service gets no gRPC stub: it would only import grpc, which expr/ must not do.
    services = [path for path in protos if re.search(r"^service ", (PROTO / path).read_text("utf-8"), re.MULTILINE)]
    plugins = [f"--plugin={name}={TOOLS / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    _protoc([f"--python_out={out}", f"--mypy_out=quiet:{out}", *plugins], protos)
    _protoc([f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *plugins], services)
    for folder in {path.parent for path in protos}:
        (out / folder / "__init__.py").write_text(PACKAGE_DOCSTRING, "utf-8")
    return sorted(path.relative_to(out) for path in out.rglob("*.py*") if path.suffix in {".py", ".pyi"})


def stale() -> list[Path]:
    """Return the stubs under engine/ that are missing, differ, or belong to no proto; relative to engine/, sorted."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        fresh = {path: (out / path).read_bytes() for path in generate(out)}
    folders = {path.parent for path in fresh}
    committed = {
        path.relative_to(ENGINE): path.read_bytes()
        for folder in folders
        for path in (ENGINE / folder).glob("*.py*")
        if path.is_file()
    }
    return sorted(path for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))


def lint() -> None:
    """Hold the protos to buf's rules in buf.yaml. Raises GenerationError with buf's findings."""
    with tempfile.TemporaryDirectory() as scratch:
        descriptors = Path(scratch) / "arbiter.binpb"
        _protoc(["--include_imports", "--include_source_info", f"--descriptor_set_out={descriptors}"], sources())
        command = [str(TOOLS / "buf"), "lint", str(descriptors), "--config", str(ROOT / "buf.yaml")]
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words, no shell
    if found.returncode:
        raise GenerationError(found.stdout + found.stderr)


def _protoc(options: list[str], protos: list[Path]) -> None:
    includes = [PROTO, Path(protoc.__file__).parent / "_proto", Path(status_pb2.__file__).parents[2]]
    code = protoc.main(["protoc", *(f"-I{folder}" for folder in includes), *options, *(p.as_posix() for p in protos)])
    if code:
        message = f"protoc ended with {code}; what it found stands above"
        raise GenerationError(message)


def main() -> int:
    """Run from the command line; return the exit code: 0 done or fresh, 1 stale or faulty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="lint and compare; write nothing")
    check: bool = parser.parse_args().check
    try:
        lint()
        if not check:
            generate(ENGINE)
        old = stale()
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    for path in old:
        print(f"engine/{path.as_posix()}: not what its proto gives; run `python proto/generate.py`", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
