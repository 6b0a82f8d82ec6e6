"""The files of docs/deploy: they parse, they agree with each other, and the program takes what they give it."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from arbiter.config.options import OPTIONS, Auth, Tls
from arbiter.ruleset.load import load_ruleset
from arbiter.runtime import roster
from arbiter.server.exposure import Exposed, check_start, is_public
from tests import forked
from tests.conftest import replace
from tests.security.conftest import Authority, Roll

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "docs" / "deploy"
CONFIG = "/etc/arbiter/arbiter.yaml"
DATA = "/var/lib/arbiter"
KUBERNETES = "1.37"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def shown(words: list[str], environment: Mapping[str, str], tmp_path: Path) -> dict[str, Any]:
    """The options that a server has which is started like this, by the program itself: values by name.

    The configuration that is deployed stands elsewhere here than there, and that alone is changed.
    """
    assert words[0] == "serve"
    here = tmp_path / "arbiter.yaml"
    here.write_bytes((DEPLOY / "arbiter.yaml").read_bytes())
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARBITER_")}
    given = {name: str(here) if value == CONFIG else value for name, value in environment.items()}
    here_too = [str(here) if word == CONFIG else word for word in words[1:]]
    done = forked.arbiter("config", "show", "--json", *here_too, environment=clean | given)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert any(each["from"].startswith(str(here)) for each in told.values())
    return {name: each["value"] for name, each in told.items()}


def check_doors(options: dict[str, Any]) -> None:
    """What a server with these options checks before it listens."""
    groups = {
        group: {name.partition(".")[2]: value for name, value in options.items() if name.startswith(f"{group}.")}
        for group in ("tls", "auth")
    }
    doors = {"listen": options["listen"], "admin": options["admin"]}
    check_start(doors, options["metrics"], Tls(**groups["tls"]), Auth(**groups["auth"]))


def secrets_of(pod: Any, container: Any, folder: Path) -> Callable[[str], str]:
    """Make what the secrets of the manifest hold; what it returns says where a path of the pod lies here."""
    volumes = {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    places = {mount: folder / volumes[name] for mount, name in mounts.items() if name in volumes}
    assert {place.name for place in places.values()} == {"arbiter-tls", "arbiter-callers"}
    for place in places.values():
        place.mkdir()
    authority = Authority(folder)
    pair = authority.issue("localhost")
    for name, content in zip(("tls.crt", "tls.key"), pair, strict=True):
        (folder / "arbiter-tls" / name).write_bytes(content)
        (folder / "arbiter-tls" / name).chmod(0o440)
    authority.file.rename(folder / "arbiter-tls" / "ca.crt")
    Roll(folder / "arbiter-callers" / "callers.yaml").token("shop", "decide")

    def here(text: str) -> str:
        for mount, place in places.items():
            text = text.replace(f"{mount}/", f"{place}/")
        return text

    return here


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Any]:
    """The objects of the manifest by kind and name."""
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8")))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


@pytest.fixture(scope="module")
def pod(objects: dict[tuple[str, str], Any]) -> Any:
    return objects["StatefulSet", "arbiter"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


def test_the_manifest_configures_what_stands_beside_it(objects: dict[tuple[str, str], Any]) -> None:
    assert objects["ConfigMap", "arbiter-config"]["data"] == {
        "arbiter.yaml": (DEPLOY / "arbiter.yaml").read_text("utf-8")
    }


def test_kubernetes_retrains_beside_the_server_with_options_that_there_are(objects: dict[tuple[str, str], Any]) -> None:
    job = yaml.safe_load((DEPLOY / "retrain.yaml").read_text("utf-8"))
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    group, command, _, *options = container["args"]
    told = forked.arbiter(group, command, "--help").stdout
    assert all(option.partition("=")[0] in told for option in options)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert mounts.keys() == {each["name"] for each in pod["volumes"]}
    (server,) = objects["StatefulSet", "arbiter"]["spec"]["template"]["spec"]["containers"]
    places = {each["name"]: each["mountPath"] for each in server["volumeMounts"]}
    shared = ("rules", "models", "data")
    assert {name: mounts[name] for name in shared} == {name: places[name] for name in shared}


def test_kubernetes_knows_every_key_of_the_manifest(objects: dict[tuple[str, str], Any]) -> None:
    for each in objects.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    spoilt = copy.deepcopy(objects["StatefulSet", "arbiter"])
    spoilt["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, KUBERNETES, strict=True)


def test_the_rules_of_the_manifest_load(objects: dict[tuple[str, str], Any]) -> None:
    files = {name: text.encode() for name, text in objects["ConfigMap", "arbiter-rules"]["data"].items()}
    ruleset, found = load_ruleset(files, {})
    assert [each.render() for each in found] == []
    assert ruleset is not None
    assert ruleset.rules


def test_the_objects_of_the_manifest_find_each_other(
    objects: dict[tuple[str, str], Any], pod: Any, container: Any
) -> None:
    labels = objects["StatefulSet", "arbiter"]["spec"]["template"]["metadata"]["labels"]
    selected = [
        objects["StatefulSet", "arbiter"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy", "arbiter"]["spec"]["podSelector"]["matchLabels"],
        objects["Service", "arbiter"]["spec"]["selector"],
    ]
    assert selected == [labels] * 3
    ports = {each["name"] for each in container["ports"]}
    assert {each["targetPort"] for each in objects["Service", "arbiter"]["spec"]["ports"]} <= ports
    assert objects["NetworkPolicy", "arbiter"]["spec"]["ingress"][0]["ports"] == [{"port": "grpc"}]
    maps = {each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each}
    assert maps == {name for kind, name in objects if kind == "ConfigMap"}
    claims = {each["metadata"]["name"] for each in objects["StatefulSet", "arbiter"]["spec"]["volumeClaimTemplates"]}
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]} | claims


def test_the_pod_may_do_nothing_but_serve(objects: dict[tuple[str, str], Any], pod: Any, container: Any) -> None:
    everyone = pod["securityContext"]
    assert everyone["runAsNonRoot"] is True
    assert everyone["runAsUser"] == everyone["runAsGroup"] == everyone["fsGroup"] == 10001
    assert everyone["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert set(container["resources"]["limits"]) == set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert objects["StatefulSet", "arbiter"]["spec"]["replicas"] == 1


def test_the_server_of_the_manifest_is_configured_as_the_pod_is_made(
    objects: dict[tuple[str, str], Any], container: Any, tmp_path: Path
) -> None:
    options = shown(container["args"], {each["name"]: each["value"] for each in container["env"]}, tmp_path)
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    places = {options[name] for name, option in OPTIONS.items() if option.is_path and options[name]}
    assert {place for place in places if place not in mounts and str(Path(place).parent) not in mounts} == set()
    claim = objects["StatefulSet", "arbiter"]["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert mounts[options["data"]]["name"] == claim
    assert not mounts[options["data"]].get("readOnly")
    assert mounts[options["rules"]]["readOnly"] is True
    assert mounts[str(Path(CONFIG).parent)]["readOnly"] is True
    # One worker for each processor that it is given, not for each that the machine has.
    assert options["workers"] == int(container["resources"]["limits"]["cpu"])
    assert options["listen"].startswith("0.0.0.0:")
    (rule,) = objects["NetworkPolicy", "arbiter"]["spec"]["ingress"]
    assert rule["from"]
    # What others reach is a port of the container, and only that.
    addresses = [options[name] for name in ("listen", "admin", "metrics") if options[name]]
    assert {each["containerPort"] for each in container["ports"]} == {port_of(a) for a in addresses if is_public(a)}


def test_the_server_of_the_manifest_asks_who_calls_and_hides_what_they_say(
    pod: Any, container: Any, tmp_path: Path
) -> None:
    here = secrets_of(pod, container, tmp_path)
    environment = {each["name"]: here(each["value"]) for each in container["env"]}
    options = shown([here(word) for word in container["args"]], environment, tmp_path)
    check_doors(options)
    assert not options["auth.insecure"]
    assert is_public(options["listen"])
    # With administration on it, this one is for the pod alone.
    assert not is_public(options["admin"])
    assert {each["secret"]["defaultMode"] for each in pod["volumes"] if "secret" in each} == {0o440}
    for missing in ("tls.certificate", "auth.tokens"):
        with pytest.raises(Exposed):
            check_doors(options | {missing: ""})


def test_the_probes_of_the_manifest_tell_a_server_that_serves(
    objects: dict[tuple[str, str], Any], pod: Any, container: Any, tmp_path: Path
) -> None:
    here = secrets_of(pod, container, tmp_path)
    rules = tmp_path / "rules"
    rules.mkdir()
    for name, text in objects["ConfigMap", "arbiter-rules"]["data"].items():
        (rules / name).write_text(text)
    given = {each["name"]: here(each["value"]) for each in container["env"]} | {"PYTHONPATH": str(ROOT / "engine")}
    assert given.pop("ARBITER_CONFIG") == CONFIG
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARBITER_")} | given
    (command,) = {tuple(container[probe]["exec"]["command"]) for probe in PROBES}
    assert command[0] == "arbiter"

    def probe(admin: str, *more: str) -> tuple[int, str]:
        target = {"ARBITER_TARGET": f"localhost:{port_of(admin)}"}
        done = forked.arbiter(*command[1:], *more, environment=environment | target)
        return done.returncode, done.stdout.strip()

    words = [here(word) for word in container["args"]]
    (asked,) = [word.partition("=")[2] for word in words if word.startswith("--admin=")]
    assert environment["ARBITER_TARGET"] == f"localhost:{port_of(asked)}"
    # Any free ports in place of those of the pod.
    free = [re.sub(r"^(--(?:listen|admin)=.*):\d+$", r"\1:0", word) for word in words]
    more = ["--rules", str(rules), "--models", "", "--data", str(tmp_path / "data"), "--workers", "1"]
    log = tmp_path / "log"
    with log.open("w") as written:
        server = subprocess.Popen(  # noqa: S603 - the command is ours
            [sys.executable, "-m", "arbiter.cli", *free, *more],
            env=environment, stdout=subprocess.PIPE, stderr=written, text=True,
        )  # fmt: skip
    try:
        assert server.stdout is not None
        admin = server.stdout.readline().strip().partition("admin on ")[2]
        assert admin.startswith("127.0.0.1:"), log.read_text()
        assert probe(admin) == (0, "serving")
        replace(rules / "broken.yaml", "rulez: []\n")
        deadline = time.monotonic() + 30
        while probe(admin, "arbiter.reload") != (1, "not serving"):
            assert time.monotonic() < deadline
        # That is no reason to take it out, or to start it again.
        assert probe(admin) == (0, "serving")
    finally:
        server.terminate()
        code = server.wait(60)
        assert server.stdout is not None
        server.stdout.close()
    assert code == 0
    assert probe(admin) == (1, "")


def test_kubernetes_waits_for_a_server_that_drains(pod: Any, container: Any, tmp_path: Path) -> None:
    options = shown(container["args"], {each["name"]: each["value"] for each in container["env"]}, tmp_path)
    sleep, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    whole = float(pause) + options["grace"] + roster.MARGIN_S
    assert pod["terminationGracePeriodSeconds"] > whole
    # While it drains health says NOT_SERVING, and that must not count as dead.
    liveness = container["livenessProbe"]
    # Each starts a program, for which the usual second is too short.
    assert all(container[probe]["timeoutSeconds"] >= 5 for probe in PROBES)
    assert liveness["periodSeconds"] * (liveness["failureThreshold"] - 1) > pod["terminationGracePeriodSeconds"]


@pytest.fixture(scope="module")
def unit() -> Any:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names of options have capitals
    parser.read_string((DEPLOY / "arbiter.service").read_text("utf-8"))
    return parser


def test_the_unit_starts_a_server_that_keeps_to_its_directory(unit: Any, tmp_path: Path) -> None:
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "arbiter"
    options = shown(words, {}, tmp_path)
    assert options["data"] == f"/var/lib/{service['StateDirectory']}" == DATA
    assert options["listen"] == OPTIONS["listen"].default
    check_doors(options)
    assert float(service["TimeoutStopSec"]) > options["grace"] + roster.MARGIN_S
    # SIGTERM to all at once would end workers before the supervisor says how long they have.
    assert service["KillMode"] == "mixed"
    # What wrong usage ends with; trying again would not help.
    assert service["RestartPreventExitStatus"] == "2"


def test_the_unit_may_do_nothing_but_serve(unit: Any) -> None:
    service = unit["Service"]
    expected = {
        "DynamicUser": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
        "PrivateDevices": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "SystemCallFilter": "@system-service",
        "RestrictNamespaces": "yes", "RestrictSUIDSGID": "yes",
    }  # fmt: skip
    assert {name: service[name] for name in expected} == expected
    assert "User" not in service


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, continued lines joined."""
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    joined = re.sub(
        r"\\\n\s*", "", "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    )
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined.splitlines() if line]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def test_what_the_page_puts_into_a_container_and_onto_a_machine_loads(tmp_path: Path) -> None:
    options = shown(["serve", "--config", CONFIG], {}, tmp_path)
    text = (DEPLOY.parent / "deployment.md").read_text("utf-8")
    mounted = {to: Path(ROOT, source) for source, to in re.findall(r'-v "\$PWD/(\S+?):(\S+?):ro"', text)}
    assert set(mounted) == {options["rules"], options["models"]}
    (copied,) = re.findall(r"^mkdir -p (\S+) && cp -r (.+) \1/$", text, re.MULTILINE)
    folder, sources = copied
    assert {f"{folder}/{source}": Path(ROOT, source) for source in sources.split()} == mounted
    done = forked.arbiter("check", mounted[options["rules"]], "--models", mounted[options["models"]])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_has_no_tools_and_no_root() -> None:
    stage = final_stage()
    assert [name for name, _ in instructions()].count("FROM") == 2
    runs = [text for name, text in stage if name == "RUN"]
    assert not [text for text in runs if re.search(r"apt|pip|gcc|curl|chmod 777", text)]
    last_user = [text for name, text in stage if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last_user)
    # Whoever it runs as owns the only place that it writes to, in the image as in the pod.
    assert any(f"-o {last_user.partition(':')[0]} " in text and text.endswith(DATA) for text in runs)
    assert [json.loads(text) for name, text in stage if name == "VOLUME"] == [[DATA]]


def test_the_image_starts_a_server_on_the_port_that_it_names(tmp_path: Path) -> None:
    stage = dict(final_stage())
    environment = dict(each.split("=", 1) for each in stage["ENV"].split())
    # Any other would win over the file that somebody mounts.
    assert {name for name in environment if name.startswith("ARBITER_")} == {"ARBITER_CONFIG"}
    options = shown(json.loads(stage["CMD"]), {"ARBITER_CONFIG": environment["ARBITER_CONFIG"]}, tmp_path)
    assert json.loads(stage["ENTRYPOINT"]) == ["arbiter"]
    assert int(stage["EXPOSE"]) == port_of(options["listen"])
    # Of itself it lets nobody in from outside: whoever runs it says who may call, or that it does not matter.
    with pytest.raises(Exposed, match="`listen` is the public address"):
        check_doors(options)
    assert options["data"] == DATA


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder() -> None:
    sent = {
        line.removeprefix("!")
        for line in (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for name, text in instructions()
        if name == "COPY" and not text.startswith("--from=")
        for source in text.split()[:-1]
    }
    assert copied == sent
    assert not [source for source in copied if not (ROOT / source).exists()]
