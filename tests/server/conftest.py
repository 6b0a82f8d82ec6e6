"""A real server on a free loopback port, over a real store and engine, with a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import msgspec
import pytest

from arbiter.client import Client
from arbiter.profiles.store import Limits, Store
from arbiter.runtime.archive import Archive
from arbiter.runtime.desk import Desk
from arbiter.runtime.engine import Engine
from arbiter.runtime.loader import Loader
from arbiter.runtime.local import LocalAdmin
from arbiter.runtime.settings import Backing
from arbiter.runtime.versions import Versions
from arbiter.server.app import Server
from arbiter.server.settings import FaceSettings
from arbiter.telemetry.counters import Counters

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
decisions:
  shop.banner:
    slots: 2
    order: [priority]
    default: {action: show, params: {banner: bestsellers}}
  shop.footer:
    slots: 1
    order: [priority]
    default: {action: show, params: {banner: plain}}
  shop.silent:
    slots: 1
    order: [priority]
features:
  orders_90d: {count: purchase, window: 90d}
  last_amount: {last: purchase.amount, window: 90d}
segments:
  loyal: features.orders_90d >= 2
  grown: profile.age >= 18
rules:
  - id: by-name
    decision: shop.banner
    priority: 90
    when: profile.age >= 18
    then: {action: greet, params: {text: "Hello ${profile.name}", age: "${profile.age}"}}
  - id: canadian
    decision: shop.banner
    priority: 80
    when: profile.country == "CA"
    then: {action: show, params: {banner: maple, tags: [a, b], size: {w: 3, h: 1.5}}}
  - id: phone
    decision: shop.banner
    priority: 70
    when: context.device in ["ios", "android"]
    then: {action: show, params: {banner: app}}
  - id: never
    decision: shop.banner
    priority: 60
    when: "true"
    enabled: false
    then: {action: show, params: {banner: never}}
  - id: footer-canadian
    decision: shop.footer
    priority: 50
    when: profile.country == "CA"
    then: {action: show, params: {banner: maple, tags: [a, b], size: {w: 3, h: 1.5}}}
  - id: footer-spring
    decision: shop.footer
    priority: 40
    when: profile.country == "CA"
    active: {from: 2030-03-01T00:00:00Z, until: 2030-06-01T00:00:00Z}
    then: {action: show, params: {banner: spring}}
"""


class Shop:
    """A server with all that stands behind it."""

    def __init__(
        self, folder: Path, settings: FaceSettings | None = None, *, load: bool = True, bounds: Limits | None = None
    ) -> None:
        self.rules = folder / "rules"
        self.rules.mkdir()
        self.write(RULES)
        archive = Archive(folder / "data" / "snapshots")
        self.store = Store.open(folder / "data" / "store", limits=bounds)
        self.counters = Counters()
        self.engine = Engine(self.store, counters=self.counters)
        loader, desk = Loader(self.rules, None, archive), Desk(archive, self.counters)
        self.admin = LocalAdmin(self.engine, loader, desk, Versions(desk, loader, archive))
        if load:
            self.admin.reload()
        self.backing = Backing(self.engine, self.admin, self.counters)
        self.server = Server(self.backing, "127.0.0.1:0", settings)
        self.client = Client(f"127.0.0.1:{self.server.port}")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.server.port}")

    def write(self, rules: str) -> None:
        (self.rules / "shop.yaml").write_text(rules, "utf-8")

    def close(self) -> None:
        self.client.close()
        self.channel.close()
        self.server.stop(1.0)
        self.store.close()


OpenShop = Callable[..., Shop]


@pytest.fixture(scope="module", params=["inline", "stock"])
def transport(request: pytest.FixtureRequest) -> str:
    """What carries the calls: all tests that open a shop run on both."""
    name: str = request.param
    return name


@pytest.fixture
def open_shop(tmp_path: Path, transport: str) -> Iterator[OpenShop]:
    opened: list[Shop] = []

    def opener(*, load: bool = True, bounds: Limits | None = None, **settings: object) -> Shop:
        face = msgspec.convert({"transport": transport, **settings}, FaceSettings)
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(Shop(folder, face, load=load, bounds=bounds))
        return opened[-1]

    yield opener
    for shop in opened:
        shop.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Shop]:
    opened = Shop(tmp_path_factory.mktemp("shop"), msgspec.convert({"transport": transport}, FaceSettings))
    yield opened
    opened.close()
