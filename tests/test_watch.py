"""Directories are read as of one moment, and every way in which files change is noticed."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arbiter.runtime.sources import names_of, read_sources
from arbiter.runtime.watcher import Watcher, links_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arbiter.runtime.sources import Sources

PATIENCE_S = 20.0  # how long a test waits for what must come; none is expected to


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "a.yaml").write_text("rules: []\n")
    return folder


def start(watcher: Watcher, directory: Path, looks: queue.SimpleQueue[None]) -> None:
    """Start, and return when events arrive: a watch that is not yet set up would leave the test to the slow poll."""
    watcher.start()
    assert looked(looks, lambda _: (directory / "..probe").touch())


def looked(looks: queue.SimpleQueue[None], act: Callable[[int], object], tries: int = 200) -> bool:
    """Whether a look comes of acting, again and again since a watch may not be set up yet."""
    for number in range(tries):
        act(number)
        with contextlib.suppress(queue.Empty):
            looks.get(timeout=0.1)
            return True
    return False


@pytest.fixture
def watched(rules: Path) -> Iterator[Callable[[Callable[[Sources], bool]], None]]:
    """Watches; gives a function that waits until a look sees sources of which a condition is true."""
    looks: queue.SimpleQueue[None] = queue.SimpleQueue()
    watcher = Watcher([rules], lambda: looks.put(None))
    start(watcher, rules, looks)

    def until(condition: Callable[[Sources], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            looks.get(timeout=max(0.0, deadline - time.monotonic()))
            if condition(read_sources(rules, None)):
                return

    yield until
    watcher.stop()


def contents(sources: Sources) -> dict[str, bytes]:
    return dict(sources.rules)


def test_an_edit_is_noticed(rules: Path, watched: Callable[[Callable[[Sources], bool]], None]) -> None:
    (rules / "a.yaml").write_text("rules: [1]\n")
    watched(lambda s: contents(s) == {"a.yaml": b"rules: [1]\n"})


def test_a_file_that_is_renamed_over_another_is_noticed(
    rules: Path, watched: Callable[[Callable[[Sources], bool]], None]
) -> None:
    for number in range(3):
        draft = rules / ".a.yaml.draft"
        draft.write_text(f"rules: [{number}]\n")
        draft.replace(rules / "a.yaml")
        watched(lambda s, number=number: contents(s) == {"a.yaml": b"rules: [%d]\n" % number})  # type: ignore[misc]


@pytest.mark.parametrize("name", [b"\xff.yaml", b"\xff.txt"])
def test_files_are_watched_on_after_one_whose_name_is_no_utf8(
    name: bytes, rules: Path, watched: Callable[[Callable[[Sources], bool]], None]
) -> None:
    odd = os.fsencode(rules) + b"/" + name
    with open(odd, "wb"):  # noqa: PTH123 - a path of bytes
        pass
    if name.endswith(b".yaml"):
        watched(lambda s: [(d.file, d.message) for d in s.refused] == [("rules/\\xff.yaml", "its name is not UTF-8")])
    (rules / "a.yaml").write_text("rules: [3]\n")
    watched(lambda s: contents(s) == {"a.yaml": b"rules: [3]\n"})
    os.unlink(odd)  # noqa: PTH108 - a path of bytes
    watched(lambda s: not s.refused)


def test_a_folder_that_cannot_be_listed_is_refused_and_not_taken_for_empty(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = rules / "closed"
    closed.mkdir()
    listed = os.scandir

    def scandir(path: str) -> object:  # as for anybody but root, who lists what has no permissions
        if os.fspath(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (found,) = read_sources(rules, None).refused
    assert (found.file, found.message) == ("rules/closed", "cannot be listed: Permission denied")


def test_folders_deep_inside_each_other_are_refused(rules: Path) -> None:
    (rules / "/".join(["d"] * 80)).mkdir(parents=True)
    (found,) = read_sources(rules, None).refused
    assert found.message == "cannot be listed: more than 64 folders inside each other"


def test_no_more_is_read_than_all_files_may_have(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        (rules / f"b{number}.yaml").write_bytes(b"#" * 100)
    monkeypatch.setattr("arbiter.runtime.sources.MOST_BYTES", 350)
    sources = read_sources(rules, None)
    assert [(d.file, d.message.partition(" bytes")[0]) for d in sources.refused] == [
        ("rules", "the files of the directory have more than 350")
    ]
    assert len(sources.rules) < 6


def test_new_folders_are_watched_too(rules: Path, watched: Callable[[Callable[[Sources], bool]], None]) -> None:
    (rules / "deep" / "deeper").mkdir(parents=True)
    (rules / "deep" / "deeper" / "b.yml").write_text("1")
    watched(lambda s: s.rules.get("deep/deeper/b.yml") == b"1")
    (rules / "deep" / "deeper" / "b.yml").write_text("2")
    watched(lambda s: s.rules.get("deep/deeper/b.yml") == b"2")


def test_a_directory_that_goes_and_comes_back_is_watched_again(
    rules: Path, watched: Callable[[Callable[[Sources], bool]], None]
) -> None:
    rules.rename(rules.with_name("away"))
    watched(lambda s: [d.message for d in s.refused] == ["the rules directory does not exist"])
    rules.with_name("away").rename(rules)
    watched(lambda s: not s.refused)
    (rules / "a.yaml").write_text("rules: [2]\n")
    watched(lambda s: contents(s) == {"a.yaml": b"rules: [2]\n"})


def test_a_kubernetes_volume_is_read_through_its_links_and_its_swap_is_noticed(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "volume"
    for number in (1, 2):
        (rules / f"..data_{number}").mkdir(parents=True)
        (rules / f"..data_{number}" / "a.yaml").write_text(f"rules: [{number}]\n")
    (rules / "..data").symlink_to("..data_1")
    (rules / "a.yaml").symlink_to("..data/a.yaml")
    assert contents(read_sources(rules, None)) == {"a.yaml": b"rules: [1]\n"}
    looks: queue.SimpleQueue[None] = queue.SimpleQueue()
    watcher = Watcher([rules], lambda: looks.put(None))
    start(watcher, rules, looks)
    (rules / "..data_tmp").symlink_to("..data_2")
    (rules / "..data_tmp").rename(rules / "..data")
    expected = {"a.yaml": b"rules: [2]\n"}
    looks.get(timeout=PATIENCE_S)
    while contents(read_sources(rules, None)) != expected:
        looks.get(timeout=PATIENCE_S)
    watcher.stop()


@pytest.mark.parametrize("given", ["volume/rules", "volume/..data/rules", "here/rules"])
def test_a_link_on_the_way_to_a_directory_is_followed_anew_when_it_is_swapped(
    tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arbiter.runtime.watcher._POLL_MS", 60_000)  # so that only an event can tell
    volume, rules = tmp_path / "volume", tmp_path / given
    for number in (1, 2):
        (volume / f"..data_{number}" / "rules").mkdir(parents=True)
        (volume / f"..data_{number}" / "rules" / "a.yaml").write_text(f"rules: [{number}]\n")
    (volume / "..data").symlink_to("..data_1")
    (volume / "rules").symlink_to("..data/rules")
    (tmp_path / "here").symlink_to(volume)
    looks: queue.SimpleQueue[None] = queue.SimpleQueue()
    watcher = Watcher([rules], lambda: looks.put(None))
    start(watcher, rules, looks)

    def swap(number: int) -> None:
        (volume / "..data_tmp").symlink_to(f"..data_{2 - number % 2}")
        (volume / "..data_tmp").rename(volume / "..data")

    assert looked(looks, swap)
    while looked(looks, lambda _: None, tries=5):  # what the swaps have set off
        pass
    assert looked(looks, lambda number: (rules / "a.yaml").write_text(f"rules: [{number}]\n"))
    watcher.stop()


def test_the_links_on_the_way_to_a_directory_are_those_that_the_kernel_follows(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "real" / "deep").mkdir(parents=True)
    (root / "real" / "up").symlink_to("../real/deep")
    (root / "link").symlink_to(root / "real", target_is_directory=True)
    (root / "circle").symlink_to("circle")
    assert links_to(root / "real" / "deep") == []
    assert links_to(root / "link" / "deep") == [root / "link"]
    assert links_to(root / "link" / "up" / ".." / "up") == [root / "link", root / "real" / "up", root / "real" / "up"]
    assert set(links_to(root / "circle" / "deep")) == {root / "circle"}


def test_scraps_of_editors_are_not_there(rules: Path) -> None:
    before = read_sources(rules, None)
    for name in (".a.yaml.swp", "a.yaml~", ".#a.yaml", "#a.yaml#", ".hidden.yaml", "4913", "a.yaml.bak", "notes.md"):
        (rules / name).write_text("scrap")
    (rules / ".git").mkdir()
    (rules / ".git" / "b.yaml").write_text("scrap")
    assert read_sources(rules, None) == before


def test_only_content_counts(rules: Path) -> None:
    before = read_sources(rules, None).fingerprint
    (rules / "a.yaml").write_text("rules: []\n")
    assert read_sources(rules, None).fingerprint == before
    (rules / "a.yaml").rename(rules / "b.yaml")
    assert read_sources(rules, None).fingerprint != before


def test_links_in_circles_end(rules: Path) -> None:
    (rules / "again").symlink_to(rules, target_is_directory=True)
    assert contents(read_sources(rules, None)) == {"a.yaml": b"rules: []\n"}


def test_model_files_are_read_beside_rules(rules: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "churn"
    folder.mkdir(parents=True)
    for name in ("manifest.yaml", "model.onnx", "train.py", "README.md"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "models" / "manifest.yaml").write_text("lies too high")
    read = read_sources(rules, tmp_path / "models")
    assert read.models == {"churn/manifest.yaml": b"manifest.yaml", "churn/model.onnx": b"model.onnx"}
    assert [file.path for file in read.files()] == [
        "models/churn/manifest.yaml",
        "models/churn/model.onnx",
        "rules/a.yaml",
    ]


@pytest.mark.parametrize(
    ("rules", "models", "message"),
    [
        ("nowhere", None, "nowhere: the rules directory does not exist"),
        ("empty", None, "empty: the rules directory holds no rule file"),
        ("full", "nowhere", "nowhere: the models directory does not exist"),
    ],
)
def test_directories_that_are_not_there_are_refused(
    tmp_path: Path, rules: str, models: str | None, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.yaml").write_text("rules: []")
    read = read_sources(tmp_path / rules, None if models is None else tmp_path / models)
    assert [each.render().partition("\n")[0] for each in read.refused] == [message]


def test_who_has_no_models_is_told_how_to_say_so(rules: Path) -> None:
    (missing,) = read_sources(rules, rules / "nowhere").refused
    assert missing.hint == 'name it with --models, or have none: --models ""'


def test_a_file_that_cannot_be_read_is_refused(rules: Path) -> None:
    (rules / "b.yaml").symlink_to("nowhere.yaml")
    read = read_sources(rules, None)
    assert [each.render() for each in read.refused] == ["rules/b.yaml: cannot be read: No such file or directory"]


def test_what_is_no_regular_file_is_refused_and_a_huge_one_not_read_whole(rules: Path) -> None:
    (rules / "b.yaml").symlink_to("/dev/null")
    with (rules / "c.yaml").open("wb") as file:
        file.truncate(1 << 30)
    read = read_sources(rules, None)
    assert [each.render() for each in read.refused] == ["rules/b.yaml: is no regular file"]
    assert len(read.rules["c.yaml"]) == (16 << 20) + 1


@pytest.mark.parametrize(
    ("rules", "models", "names"),
    [
        ("shop/rules", "shop/models", ("rules", "models")),
        ("shop/offers/", None, ("offers", "models")),
        ("rules/live", "models/live", ("rules", "models")),
        ("models", "rules", ("models", "rules")),
        ("models", None, ("rules", "models")),
        ("/", "/srv/models", ("rules", "models")),
        ("shop/..", "shop/scores", ("rules", "models")),
    ],
)
def test_files_are_named_below_their_directory_unless_that_could_mean_either(
    rules: str, models: str | None, names: tuple[str, str]
) -> None:
    found = names_of(Path(rules), Path(models) if models else None)
    assert (found.rules, found.models) == names
