"""A server under soak: its process, its workers, its files and its disk.

Law: starts and ends processes, each by its id; makes and fills the disk. Decides nothing about when.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.soak.face import BOARD
from benchmarks.soak.world import rule_files, write_model

if TYPE_CHECKING:
    from benchmarks.soak.board import Version

PATIENCE_S = 60.0


class Files:
    """Rules and models as their author keeps them. Every change is one rename."""

    def __init__(self, folder: Path) -> None:
        self.rules = folder / "rules"
        self.models = folder / "models"
        self._versions = folder / "versions-of-the-model"

    def make(self, version: Version) -> None:
        """Write them for the first time."""
        self.rules.mkdir(parents=True)
        self.models.mkdir()
        self._versions.mkdir()
        self.write(version)

    def write(self, version: Version) -> None:
        """Bring them to this version."""
        for name, text in rule_files(version).items():
            self._replace(name, text)
        folder = self._versions / str(version.model)
        if not folder.exists():
            write_model(version, folder)
        # A link that is swapped, as Kubernetes does it.
        link = self.models / ".next"
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        link.rename(self.models / "worth")

    def break_rules(self) -> None:
        """Write a rule file with a mistake."""
        text = (self.rules / "rules.yaml").read_text("utf-8")
        self._replace("rules.yaml", text.replace("profile.points", "profile.pionts", 1))

    def _replace(self, name: str, text: str) -> None:
        path = self.rules / name
        if path.exists() and path.read_text("utf-8") == text:
            return
        fresh = self.rules / f".{name}.next"
        fresh.write_text(text, "utf-8")
        fresh.rename(path)


class Disk:
    """The data directory's disk: one of its own where we may mount one, else the workers' quota on the length of files.

    `how` says which.
    """

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "soak", str(folder)]
        self._mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603 - the system's mount
        self.how = f"a tmpfs of {size_mib} MiB, filled" if self._mounted else "RLIMIT_FSIZE of the workers"
        self._filler = folder / "filler"

    def fill(self, workers: list[int]) -> None:
        """Let it be full."""
        if not self._mounted:
            for pid in workers:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with self._filler.open("wb", buffering=0) as file:
            for block in (bytes(1 << 20), bytes(1 << 12)):
                with contextlib.suppress(OSError):
                    while file.write(block) == len(block):
                        pass

    def free(self, workers: list[int]) -> None:
        """Make room again."""
        if not self._mounted:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._filler.unlink(missing_ok=True)

    def used(self) -> int:
        """Bytes of the store, and of all else in the directory but the filler."""
        found = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found += path.stat().st_blocks * 512 if path.is_file() and path != self._filler else 0
        return found

    def leave(self) -> None:
        """Unmount it."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)  # noqa: S603, S607 - the system's umount


class Served:
    """A running `arbiter serve`."""

    def __init__(self, folder: Path, files: Files, data: Path, workers: int) -> None:
        self._folder = folder
        self._command = [
            sys.executable, "-m", "benchmarks.soak.serve", "--workers", str(workers), "--rules", str(files.rules),
            "--models", str(files.models), "--data", str(data), "--grace", "5", "--listen",
        ]  # fmt: skip
        self.target = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the port that it had before if it had one. Raises RuntimeError when it does not get ready."""
        process = subprocess.Popen(  # noqa: S603 - our own program
            [*self._command, self.target],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, BOARD: str(self._folder / "board")},
        )  # fmt: skip
        self._process = process
        # A pipe, since the length of files may be limited.
        threading.Thread(target=self._keep_log, args=(process,), daemon=True).start()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("arbiter ready on "):
            raise RuntimeError(f"the server did not get ready; its log is {self._folder / 'log'}")
        self.target = line.removeprefix("arbiter ready on ").partition(",")[0]

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with (self._folder / "log").open("a", encoding="utf-8") as log:
            for line in process.stderr:
                log.write(line)
                log.flush()

    def workers(self) -> list[int]:
        """The process ids of the workers, the eldest first."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii").split()
            spawned = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        except OSError:
            return []
        return spawned

    def kill_all(self) -> None:
        """Kill -9 of the supervisor and its workers, at once."""
        assert self._process is not None
        for pid in (self.pid, *self.workers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def stop(self) -> int | None:
        """End it; its exit code. None when it never ran."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return -9
        finally:
            assert process.stdout is not None
            process.stdout.close()
