"""The options of the server: one table, and from it the file, the environment, the flags and every message."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import typer.main
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from arbiter.cli.app import app
from arbiter.cli.remote import DEFAULT_TARGET
from arbiter.config.declare import Option, Value, written
from arbiter.config.limits import Limits
from arbiter.config.options import OPTIONS, OTHER_VARIABLES, Options
from arbiter.config.read import Chosen, ConfigFile, choose
from arbiter.config.schema import config_schema
from arbiter.profiles.store import Limits as StoreLimits
from arbiter.runtime.archive import KEPT
from arbiter.runtime.settings import Settings
from arbiter.server.settings import FaceSettings
from tests import forked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
SCHEMA = Draft7Validator(config_schema())
each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)


def values_of(option: Option) -> st.SearchStrategy[Value]:
    """Values that fit an option."""
    if option.words:
        return st.sampled_from(option.words)
    if option.type is bool:
        return st.booleans()
    if option.type is int:
        return st.integers(int(option.least or 0), int(option.most or 0))
    if option.type is float:
        return st.floats(option.least or 0, option.most or 0)
    if option.shown == "HOST:PORT":
        return st.integers(1, 65535).map(lambda port: f"{option.key}.example:{port}")  # no two the same
    letters = st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]).filter(str.isprintable)
    return st.text(letters, min_size=1).filter(lambda text: str(PurePosixPath("x", text)) == f"x/{text}")


def another(option: Option) -> Value:
    """One value that fits and is not the default."""
    if option.words:
        return next(word for word in option.words if word != option.default)
    if option.type is bool:
        return not option.default
    if option.type is str:
        return f"{option.key}.example:7" if option.shown == "HOST:PORT" else "elsewhere"
    assert not isinstance(option.default, str)
    if option.default == option.most:
        return option.type(option.default - 1)
    more = option.default + 1
    return option.type(more if option.most is None else min(more, option.most))


def sound(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same with every option that these need."""
    found = dict(values)
    while lacking := {OPTIONS[name].needs for name in found} - found.keys() - {""}:
        found |= {name: another(OPTIONS[name]) for name in lacking}
    return found


def file_of(values: Mapping[str, Value], name: str = "shop.yaml") -> ConfigFile:
    tree: dict[str, Any] = {}
    for full, value in values.items():
        group, _, key = full.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[key] = value
    assert list(SCHEMA.iter_errors(tree)) == []
    return ConfigFile(name, json.dumps(tree, indent=1, ensure_ascii=False).encode())


def variables_of(values: Mapping[str, Value]) -> dict[str, str]:
    return {OPTIONS[name].variable: written_whole(value) for name, value in values.items()}


def flags_of(values: Mapping[str, Value]) -> dict[str, str | bool]:
    return {name: value if isinstance(value, bool) else written_whole(value) for name, value in values.items()}


def written_whole(value: Value) -> str:
    """As people write it, with every digit of a fraction."""
    return repr(value) if isinstance(value, float) else written(value)


def chosen(
    file: ConfigFile | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str | bool] | None = None,
) -> Chosen:
    found, mistakes = choose(file, environment or {}, flags or {})
    assert found is not None, [each.render() for each in mistakes]
    return found


def value_and_place(found: Chosen, name: str) -> tuple[Value, str]:
    return next((value, place) for option, value, place in found.rows() if option.name == name)


def said(
    text: str = "", environment: Mapping[str, str] | None = None, flags: Mapping[str, str | bool] | None = None
) -> str:
    """All that is said of a configuration with mistakes."""
    found, mistakes = choose(ConfigFile("shop.yaml", text.encode()), environment or {}, flags or {})
    assert (found is None) == bool(mistakes)
    return "\n".join(each.render() for each in mistakes)


# Where a value comes from


def test_nothing_given_is_the_defaults() -> None:
    found = chosen()
    assert found.options == Options()
    assert set(found.places.values()) == {"default"}


@each_option
def test_an_option_is_set_in_the_file(option: Option) -> None:
    value = another(option)
    found = chosen(file_of(sound({option.name: value})))
    assert value_and_place(found, option.name) == (value, f"shop.yaml:{3 if option.group else 2}")


@each_option
def test_an_option_is_set_by_the_environment(option: Option) -> None:
    value = another(option)
    found = chosen(None, variables_of(sound({option.name: value})))
    assert value_and_place(found, option.name) == (value, option.variable)


@each_option
def test_an_option_is_set_by_a_flag(option: Option) -> None:
    value = another(option)
    found = chosen(None, {}, flags_of(sound({option.name: value})))
    assert value_and_place(found, option.name) == (value, option.flag_of(value))


SOURCES = ("default", "file", "environment", "flag")
ADDRESSES = {name for name, option in OPTIONS.items() if option.shown == "HOST:PORT"}


@given(st.data())
def test_later_sources_win_whatever_each_says(data: st.DataObject) -> None:
    layers: list[dict[str, Value]] = [
        {
            name: data.draw(values_of(OPTIONS[name]), label=f"{source} {name}")
            for name in data.draw(st.sets(st.sampled_from(sorted(OPTIONS)), max_size=4), label=source)
        }
        for source in SOURCES[1:]
    ]
    needed = sound(layers[0] | layers[1] | layers[2])
    layers[0] |= {name: value for name, value in needed.items() if not any(name in layer for layer in layers)}
    merged = {name: option.default for name, option in OPTIONS.items()} | layers[0] | layers[1] | layers[2]
    file, environment, flags = file_of(layers[0]), variables_of(layers[1]), flags_of(layers[2])
    for option, value, place in chosen(file, environment, flags).rows():
        name = option.name
        assert value == merged[name]
        source = max(number for number, layer in enumerate([merged, *layers]) if name in layer)
        assert SOURCES[source] == (
            "default" if place == "default" else "file" if place.startswith("shop.yaml:")
            else "environment" if place == option.variable else "flag"
        )  # fmt: skip


def test_paths_count_from_the_file_and_elsewhere_from_where_one_is() -> None:
    file = ConfigFile("etc/shop.yaml", b"rules: shop/rules\ndata: /var/lib/arbiter\nmodels: ''\n")
    options = chosen(file).options
    assert (options.rules, options.data, options.models) == ("etc/shop/rules", "/var/lib/arbiter", "")
    assert chosen(file, {"ARBITER_RULES": "mine"}).options.rules == "mine"
    assert chosen(file, {}, {"rules": "mine"}).options.rules == "mine"


def test_an_empty_file_and_an_empty_group_say_nothing() -> None:
    assert chosen(ConfigFile("shop.yaml", b"")).options == Options()
    assert chosen(ConfigFile("shop.yaml", b"limits:\n")).options == Options()


def test_a_false_flag_has_a_name_of_its_own() -> None:
    found = chosen(None, {"ARBITER_REQUIRE_TESTS": "true"}, {"require_tests": False})
    assert value_and_place(found, "require_tests") == (False, "--no-require-tests")


# What is said of mistakes

EVERY_MISTAKE_IN_A_FILE = """\
workers: many
lisen: 127.0.0.1:1
threads: "16"
grace: 1e9
require_tests: yes
models:
data: 2024
rules: ""
transport: inlne
listen: localhost
limits:
  id_bytes: 0
  id_bits: 8
  batch_events: 5.5
tls: [a]
"""
ALL_OF_THEM = """\
shop.yaml:1:10: `workers` must be an integer from 0 to 256, not `many`
    1 | workers: many
      |          ^^^^
shop.yaml:2:1: unknown key `lisen` in a configuration
    2 | lisen: 127.0.0.1:1
      | ^^^^^
  hint: did you mean `listen`?
shop.yaml:3:10: `threads` must be an integer from 1 to 1,024, not text
    3 | threads: "16"
      |          ^^^^
  hint: write `16` without quotes
shop.yaml:4:8: `grace` must be a number from 0 to 3,600, not `1e9`
    4 | grace: 1e9
      |        ^^^
shop.yaml:5:16: `require_tests` must be `true` or `false`, not `yes`
    5 | require_tests: yes
      |                ^^^
  hint: write `true`
shop.yaml:6:8: `models` must be text, not nothing
    6 | models:
      |        ^
  hint: write `""` for none
shop.yaml:7:7: `data` must be text, not an integer
    7 | data: 2024
      |       ^^^^
  hint: write `"2024"`
shop.yaml:8:8: `rules` must not be empty
    8 | rules: ""
      |        ^^
shop.yaml:9:12: `transport` must be one of `auto`, `inline`, `stock`, not `inlne`
    9 | transport: inlne
      |            ^^^^^
  hint: did you mean `inline`?
shop.yaml:10:9: `listen` must be HOST:PORT, not `localhost`
   10 | listen: localhost
      |         ^^^^^^^^^
  hint: as in `127.0.0.1:50051` or `[::1]:50051`
shop.yaml:12:13: `limits.id_bytes` must be an integer from 1 to 256, not `0`
   12 |   id_bytes: 0
      |             ^
shop.yaml:13:3: unknown key `id_bits` in `limits`
   13 |   id_bits: 8
      |   ^^^^^^^
  hint: did you mean `id_bytes`?
shop.yaml:14:17: `limits.batch_events` must be an integer from 1 to 2,147,483,647, not `5.5`
   14 |   batch_events: 5.5
      |                 ^^^
shop.yaml:15:6: `tls` must be a mapping (`key: value` lines), not a list
   15 | tls: [a]
      |      ^^^"""


def test_every_mistake_of_a_file_is_told_at_its_place_in_one_pass() -> None:
    assert said(EVERY_MISTAKE_IN_A_FILE) == ALL_OF_THEM


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- rules\n", "shop.yaml:1:1: a configuration must be a mapping (`key: value` lines), not a list\n"),
        ("workers: 1\n---\nworkers: 2\n", "shop.yaml:3:1: a configuration is one document, and here begins another\n"),
        ("workers: 1\nworkers: 2\n", "the key `workers` stands here for the second time; the first is at 1:1\n"),
        ('data: "a\\0"\n', r"`data` holds a character that cannot be printed: 'a\x00'"),
        ("listen: 127.0.0.1:70000\n", "not `127.0.0.1:70000`\n"),
        ("listen: 127.0.0.1:70000\n", "hint: a port is at most 65535"),
        ('listen: ""\n', "`listen` must be HOST:PORT, not empty"),
        ("limits.id_bytes: 9\n", "shop.yaml:1:1: `limits.id_bytes` does not stand in a configuration\n"),
        ("limits: {workers: 9}\n", "shop.yaml:1:10: `workers` does not stand in `limits`\n"),
        ("limits: {workers: 9}\n", "hint: write it without indent"),
        ("limits.id_bytes: 9\n", "hint: write `id_bytes` below `limits:`"),
        ("log-level: info\n", "hint: did you mean `log_level`?"),
        ("workers: [1]\n", "`workers` must be an integer from 0 to 256, not a list"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told(text: str, expected: str) -> None:
    assert expected in said(text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("WORKERS", "many", "ARBITER_WORKERS: `workers` must be an integer from 0 to 256, not `many`"),
        ("WORKERS", "257", "ARBITER_WORKERS: `workers` must be an integer from 0 to 256, not `257`"),
        ("WORKERS", "", "ARBITER_WORKERS: `workers` must be an integer from 0 to 256, not empty"),
        ("GRACE", ".nan", "ARBITER_GRACE: `grace` must be a number from 0 to 3,600, not `.nan`"),
        ("LIMITS_ID_BYTES", "true",
         "ARBITER_LIMITS_ID_BYTES: `limits.id_bytes` must be an integer from 1 to 256, not `true`"),
        ("REQUIRE_TESTS", "1",
         "ARBITER_REQUIRE_TESTS: `require_tests` must be `true` or `false`, not `1`\n  hint: write `true`"),
        ("LOG_LEVEL", "wraning",
         ("ARBITER_LOG_LEVEL: `log_level` must be one of `debug`, `info`, `warning`, `error`, not `wraning`\n"
          "  hint: did you mean `warning`?")),
        ("LISTEN", "here",
         "ARBITER_LISTEN: `listen` must be HOST:PORT, not `here`\n  hint: as in `127.0.0.1:50051` or `[::1]:50051`"),
        ("DATA", "a\udcff", r"ARBITER_DATA: `data` holds a character that cannot be printed: 'a\udcff'"),
        ("WOKERS", "2", "ARBITER_WOKERS: no option has this name\n  hint: did you mean `ARBITER_WORKERS`?"),
        ("XYZ", "2", "ARBITER_XYZ: no option has this name\n  hint: unset it; `arbiter config show` lists the options"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_names_the_variable_and_its_text(name: str, text: str, expected: str) -> None:
    assert said("", {f"ARBITER_{name}": text}) == expected


def test_what_kubernetes_sets_for_a_service_called_arbiter_is_no_mistake() -> None:
    chosen(None, {
        "ARBITER_SERVICE_HOST": "10.0.0.11", "ARBITER_SERVICE_PORT": "50051", "ARBITER_SERVICE_PORT_GRPC": "50051",
        "ARBITER_PORT": "tcp://10.0.0.11:50051", "ARBITER_PORT_50051_TCP": "tcp://10.0.0.11:50051",
        "ARBITER_PORT_50051_TCP_PROTO": "tcp", "ARBITER_PORT_50051_TCP_PORT": "50051",
        "ARBITER_PORT_50051_TCP_ADDR": "10.0.0.11", "ARBITER_METRICS_SERVICE_HOST": "10.0.0.12",
    })  # fmt: skip
    assert "did you mean `ARBITER_METRICS`?" in said("", {"ARBITER_METRICS_PORT": "9464"})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"workers": "many"}, "--workers: `workers` must be an integer from 0 to 256, not `many`"),
        ({"limits.batch_events": "0"},
         "--limits-batch-events: `limits.batch_events` must be an integer from 1 to 2,147,483,647, not `0`"),
        ({"transport": "inlne"},
         ("--transport: `transport` must be one of `auto`, `inline`, `stock`, not `inlne`\n"
          "  hint: did you mean `inline`?")),
    ],
)  # fmt: skip
def test_a_mistake_in_a_flag_names_the_flag(flags: dict[str, str | bool], expected: str) -> None:
    assert said("", {}, flags) == expected


def test_mistakes_of_all_sources_are_told_together() -> None:
    text = said("grace: x\n", {"ARBITER_THREADS": "x"}, {"workers": "x"})
    assert [line.partition(": ")[0] for line in text.splitlines() if " must be " in line] == [
        "--workers", "ARBITER_THREADS", "shop.yaml:1:8",
    ]  # fmt: skip


def test_a_mistake_that_another_source_overrules_is_told_all_the_same() -> None:
    assert said("workers: many\n", {"ARBITER_WORKERS": "2"}).startswith("shop.yaml:1:10: ")


def test_options_that_need_another_name_both() -> None:
    lines = said("tls: {key: k.pem}\n").splitlines()
    assert "shop.yaml:1:12: `tls.key` is of no use without `tls.certificate`" in lines
    assert "  hint: give `tls.certificate` too" in lines
    both = said("tls: {key: k.pem, certificate: c.pem}\n")
    assert "of no use" not in both
    assert "`auth.jwt_issuer` is of no use without `auth.jwt_keys`" in said("", {"ARBITER_AUTH_JWT_ISSUER": "us"})
    taken_back = said("tls: {key: k.pem, certificate: c.pem}\n", {}, {"tls.certificate": ""})
    assert "`tls.key` is of no use without `tls.certificate`" in taken_back


def test_two_listeners_on_one_port_name_each_other() -> None:
    text = said("listen: 127.0.0.1:7000\n", {"ARBITER_ADMIN": "127.0.0.1:7000"})
    assert "ARBITER_ADMIN: `admin` and `listen` (shop.yaml:1) are both `127.0.0.1:7000`\n" in text
    assert "are both" not in said("listen: 127.0.0.1:0\n", {"ARBITER_ADMIN": "127.0.0.1:0", "ARBITER_WORKERS": "x"})


# What follows from the one table


def test_no_two_options_share_a_variable_or_a_flag() -> None:
    assert len({each.variable for each in OPTIONS.values()} | OTHER_VARIABLES) == len(OPTIONS) + len(OTHER_VARIABLES)
    assert len({each.flag for each in OPTIONS.values()}) == len(OPTIONS)


@pytest.mark.parametrize("name", ["serve", "config show"])
def test_a_command_has_the_flag_of_every_option(name: str) -> None:
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    expected = {option.flag_of(value) for option in OPTIONS.values() for value in (True, False)}
    assert flags - {"--help", "--json", "-h"} == {
        flag
        for flag in expected
        if not flag.startswith("--no-") or OPTIONS_BY_FLAG[flag.replace("--no-", "--")] is bool
    } | {"--config"}


OPTIONS_BY_FLAG = {each.flag: each.type for each in OPTIONS.values()}


def test_every_option_reaches_the_settings_under_its_own_name_and_default() -> None:
    fields: dict[str, Any] = {}
    for struct in (Settings, FaceSettings):
        for field in msgspec.structs.fields(struct):
            fields[field.name] = field.default
    names = {name.partition(".")[0] for name in OPTIONS}
    assert names <= fields.keys()
    options = Options()
    differ = {name for name in names if fields[name] not in {getattr(options, name), msgspec.NODEFAULT}}
    # How many processors there are is for the machine to say, and models may be left out where there is no option.
    assert differ == {"workers", "models"}


def test_the_limits_of_what_is_stored_reach_the_store() -> None:
    shared = {field.name for field in msgspec.structs.fields(StoreLimits)} & {
        field.name for field in msgspec.structs.fields(Limits)
    }
    assert {"record_bytes", "event_bytes", "list_items", "aliases", "write_queue"} < shared
    bare = Settings(rules="rules", data="data", listen="127.0.0.1:0")
    for limits in (Limits(), msgspec.structs.replace(Limits(), **dict.fromkeys(shared, 77))):
        reached = msgspec.structs.replace(bare, limits=limits).store_limits
        assert {getattr(reached, name) == getattr(limits, name) for name in shared} == {True}
    assert {name: getattr(StoreLimits(), name) for name in shared} == {name: getattr(Limits(), name) for name in shared}


def test_defaults_that_stand_elsewhere_too_are_the_same() -> None:
    assert Options().listen == DEFAULT_TARGET
    assert Options().snapshots == KEPT


def test_a_schema_refuses_no_file_that_is_read_and_every_one_of_a_wrong_shape() -> None:
    whole: dict[str, Any] = {}
    for option in OPTIONS.values():
        (whole.setdefault(option.group, {}) if option.group else whole)[option.key] = another(option)
    needed = {option.needs for option in OPTIONS.values()}
    spoilt: list[Any] = [None, True, 5, -3, 0, 1.5, "", "no such thing", [], {}, {"odd": 1}, 2**40, 1e12]
    both = 0
    for option in OPTIONS.values():
        for value in spoilt:
            tree = json.loads(json.dumps(whole))
            (tree[option.group] if option.group else tree)[option.key] = value
            refused = said(yaml.safe_dump(tree))
            wrong = list(SCHEMA.iter_errors(tree))
            assert refused or not wrong, (option.name, value)
            beyond = option.shown == "HOST:PORT" or (option.name in needed and not value)
            assert wrong or not refused or beyond, (option.name, value, refused)
            both += bool(refused and wrong)
    assert both > 200
    extra: dict[str, Any]
    for extra in ({"odd": 1}, {"tls": 5}, {"limits": {"odd": 1}}, {"limits": []}):
        assert said(yaml.safe_dump(whole | extra))
        assert list(SCHEMA.iter_errors(whole | extra))
    assert list(SCHEMA.iter_errors({"limits": None})) == []


def test_every_variable_with_our_prefix_in_the_code_is_known() -> None:
    known = OTHER_VARIABLES | {each.variable for each in OPTIONS.values()}
    read = {
        name
        for path in (ROOT / "engine").rglob("*.py")
        for name in re.findall(r'"(ARBITER_[A-Z_]+)"', path.read_text("utf-8"))
    }
    assert {"ARBITER_CONFIG", "ARBITER_TARGET"} <= read <= known


# The commands


def arbiter(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARBITER_")}
    return forked.arbiter(*arguments, cwd=cwd, environment=clean | environment)


def test_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("data: shop\nlimits:\n  batch_events: 5000\ngrace: 2.5\n", "utf-8")
    done = arbiter("config", "show", "--config", "shop.yaml", "--no-require-tests", cwd=tmp_path, ARBITER_WORKERS="2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "option\tvalue\tfrom"
    assert [line.partition("\t")[0] for line in lines[1:]] == list(OPTIONS)
    assert {"data\tshop\tshop.yaml:1", "limits.batch_events\t5000\tshop.yaml:3", "grace\t2.5\tshop.yaml:4",
            "workers\t2\tARBITER_WORKERS", "require_tests\tfalse\t--no-require-tests",
            "threads\t16\tdefault", "models\tmodels\tdefault"} <= set(lines)  # fmt: skip


def test_show_as_json(tmp_path: Path) -> None:
    done = arbiter("config", "show", "--json", "--workers", 3, cwd=tmp_path)
    shown = json.loads(done.stdout)
    assert list(shown) == list(OPTIONS)
    assert shown["workers"] == {"value": 3, "from": "--workers"}
    assert shown["limits.id_bytes"] == {"value": 256, "from": "default"}


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("threads: 3\n", "utf-8")
    done = arbiter("config", "show", cwd=tmp_path, ARBITER_CONFIG="shop.yaml")
    assert "threads\t3\tshop.yaml:1" in done.stdout


@pytest.mark.parametrize("command", ["serve", "config show"])
def test_a_configuration_with_mistakes_is_wrong_usage(tmp_path: Path, command: str) -> None:
    (tmp_path / "shop.yaml").write_text("workers: many\n", "utf-8")
    done = arbiter(*command.split(), "--config", "shop.yaml", "--grace", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "--grace: `grace` must be a number from 0 to 3,600, not `x`\n"
        "shop.yaml:1:10: `workers` must be an integer from 0 to 256, not `many`\n"
        "    1 | workers: many\n"
        "      |          ^^^^\n"
        "error: the configuration holds mistakes, nothing was started\n"
    )
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = arbiter("serve", "--config", "shop.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "'shop.yaml' does not exist" in done.stderr
