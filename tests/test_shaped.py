"""Values whose names are kept apart read as a dictionary of the same does, wherever they are read."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arbiter.errors import StoreError
from arbiter.expr import shaped as module
from arbiter.expr.shaped import PLACES, Shaped, taker
from arbiter.expr.view import View
from arbiter.profiles import records
from arbiter.profiles.checking import check_store
from arbiter.profiles.records import NEVER, Profile
from arbiter.profiles.store import Store, Update

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing was written by this process before, and room for all that a test writes."""
    monkeypatch.setattr(module, "SHARED", 1 << 20)
    monkeypatch.setattr(module, "_shared", set())


NAMES = st.text(max_size=4) | st.sampled_from(["age", "country", "tags"])
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def shaped(plain: dict[str, Any]) -> Any:
    """Any, since what it gives is no `Mapping` to the type checker."""
    return module.shaped(plain)


MAPPINGS = st.dictionaries(NAMES, VALUES, max_size=8)


@given(MAPPINGS, NAMES)
def test_it_reads_like_the_dictionary(plain: dict[str, Any], name: str) -> None:
    values = shaped(plain)
    assert (len(values), list(values), bool(values)) == (len(plain), list(plain), bool(plain))
    assert (list(values.items()), list(values.values())) == (list(plain.items()), list(plain.values()))
    assert (values.keys() - {name}, name in values) == (plain.keys() - {name}, name in plain)
    assert (values.get(name), values.get(name, 7)) == (plain.get(name), plain.get(name, 7))
    assert values == plain == values == shaped(plain)
    assert [values != plain, plain != values, values != shaped(plain)] == [False] * 3
    assert (values != {**plain, "one more": 1}, values == 3, repr(values)) == (True, False, repr(plain))
    assert {**values, "one more": 1} == {**plain, "one more": 1}
    assert all(values[each] is plain[each] for each in plain)
    with pytest.raises(KeyError):
        values["no such name"]


@given(MAPPINGS, MAPPINGS, st.sampled_from([None, 1 << 50]))
def test_a_hot_record_comes_back_as_it_went_in_either_form(
    attributes: dict[str, Any], features: dict[str, Any], until: int | None
) -> None:
    tail = records.pack_times(attributes, {}) + records.pack_times(features, dict.fromkeys(features, 5))
    profile = Profile(3, attributes, features, "set", NEVER, until, tail, ("ads",), {"age": 9}, 4, ("vip",), b"r" * 16)
    raw = records.encode_profile(profile)
    hot = records.decode_hot(raw)
    assert isinstance(hot.attributes, Shaped)
    assert isinstance(hot.features, Shaped)
    assert hot == records.decode_profile(raw) == profile
    assert records.encode_profile(hot) == records.encode_profile(records.decode_profile(raw)) == raw
    assert hot.changes() == profile.changes() == records.decode_profile(records.encode(profile)).changes()
    assert msgspec.msgpack.encode(records.decode_profile(raw)) == records.encode(profile)


@given(st.lists(MAPPINGS, min_size=1, max_size=4), st.lists(NAMES, min_size=2, max_size=5, unique=True))
def test_names_are_taken_alike_from_either_form_whatever_was_taken_before(
    mappings: list[dict[str, Any]], names: list[str]
) -> None:
    take = taker(names)
    for plain in mappings * 2:
        expected = [plain.get(name) for name in names]
        assert list(take(plain)) == list(take(shaped(plain))) == expected


def test_no_more_shapes_are_kept_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHAPES", 10)
    PLACES.clear()
    take = taker(("a", "b"))
    for n in range(50):
        values = shaped({f"name{n}": 0, "a": n})
        assert (values["a"], list(take(values))) == (n, [n, None])
        assert len(PLACES) <= 10


def test_what_shares_its_names_with_nobody_stays_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARED", 3)
    monkeypatch.setattr(module, "_shared", set())
    made = [shaped({f"name{n % 5}": n}) for n in range(10)]
    assert [type(each) for each in made] == [Shaped, Shaped, Shaped, dict, dict] * 2
    assert made == [{f"name{n % 5}": n} for n in range(10)]


def test_names_that_are_none_are_an_error_of_the_store() -> None:
    with pytest.raises(StoreError, match="does not say what its values are called"):
        Shaped(b"\xc1", [1]).get("a")
    with pytest.raises(StoreError, match="2 names for 1 values"):
        Shaped(msgspec.msgpack.encode(("a", "b")), [1]).plain()


@pytest.mark.parametrize("read", [lambda values: values["b"], lambda values: values.get("b"), taker(("a", "b"))])
def test_values_that_a_damaged_record_has_lost_are_an_error_of_the_store(read: Callable[[Shaped], Any]) -> None:
    with pytest.raises(StoreError, match="2 names for 1 values"):
        read(Shaped(msgspec.msgpack.encode(("a", "b")), [1]))


def test_values_that_a_damaged_record_has_too_many_of_are_nobodys() -> None:
    values: Any = Shaped(msgspec.msgpack.encode(("a",)), [1, 2])
    assert list(taker(("a", "missing"))(values)) == [1, None]


@pytest.mark.parametrize(("damaged", "said"), [(b"\xc1", "what its values are called"), (b"\x90", "0 names for 1")])
def test_a_check_of_the_store_says_which_record_does_not_tell_its_names(
    tmp_path: Path, damaged: bytes, said: str
) -> None:
    with Store.open(tmp_path, background=False) as store:
        store.update(Update("ann", {"age": 3})).result()
    with lmdb.open(str(tmp_path / "1"), max_dbs=32) as handle, handle.begin(write=True) as txn:
        profile = handle.open_db(b"profile", txn, create=False)
        ((key, raw),) = [(bytes(key), bytes(raw)) for key, raw in txn.cursor(profile)]
        hot = records.decode_hot(raw)
        assert isinstance(hot.attributes, Shaped)
        hot.attributes.names = damaged
        txn.put(key, records.encode(hot), db=profile)
    (finding,) = check_store(tmp_path).findings
    assert said in finding.what


def test_a_view_unfolds_to_dictionaries() -> None:
    view = View(shaped({"a": 1}), {}, shaped({"f": 2}), 0, shaped({"seats": 3}))
    view.unfold()
    assert [type(each) for each in (view.profile, view.features, view.account)] == [dict, dict, dict]
    assert (view.profile, view.features, view.account) == ({"a": 1}, {"f": 2}, {"seats": 3})
