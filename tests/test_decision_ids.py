"""The ids of decisions: what they say comes back, and none is taken that this store's servers did not give."""

from __future__ import annotations

import re
from binascii import b2a_base64
from hashlib import blake2b, shake_256
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbiter.errors import InvalidField
from arbiter.learning import token
from arbiter.learning.token import Delivered
from arbiter.profiles.keys import PROOF_BYTES, Secrets
from arbiter.profiles.outcomes import Became, Recorded, RecordReports, Report
from arbiter.profiles.store import Store
from arbiter.ruleset.experiments.check import MOST_KEPT
from arbiter.ruleset.points import MAX_SLOTS
from arbiter.types import Event

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_790_000_000_000_000
PROOF = blake2b(digest_size=PROOF_BYTES, key=b"k" * 32)
NUMBER = f"{T0:x}-AAAAAAAAAAAA-1f"
DIGEST = "0123456789abcdef" * 2
OLD, NEW = Secrets(b"o" * 32), Secrets(b"n" * 32, (b"o" * 32,))

names = st.text(max_size=20)
delivered = st.lists(st.builds(Delivered, names, names, names), max_size=4).map(tuple)


def issued(point: str, gave: tuple[Delivered, ...], subject: bytes) -> str:
    return token.sealed(
        token.stated(PROOF, point, DIGEST, gave, token.room(len(subject), PROOF)), NUMBER, subject
    ).decode()


@settings(max_examples=50)
@given(names, delivered, st.binary(min_size=16, max_size=80))
def test_what_an_id_says_comes_back(point: str, gave: tuple[Delivered, ...], subject: bytes) -> None:
    text = issued(point, gave, subject)
    assert text.isascii()
    assert re.fullmatch(r"[A-Za-z0-9_.-]+={0,2}", text)
    assert text.partition(".")[0] == NUMBER
    claim = token.opened(PROOF, text, "id")
    assert (claim.number, claim.at, claim.subject, claim.point) == (NUMBER, T0, subject, point)
    assert (claim.snapshot, claim.delivered, claim.unnamed) == (DIGEST, gave, 0)


@given(st.data())
def test_no_other_text_is_taken(data: st.DataObject) -> None:
    text = issued("home", (), b"s" * 16)
    place = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(place, len(text)))
    other = text[:place] + data.draw(st.text(max_size=3)) + text[end:]
    if other != text:
        with pytest.raises(InvalidField):
            token.opened(PROOF, other, "id")


@given(st.text(max_size=100))
def test_text_that_is_no_id_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidField, match=r"id of a decision|is empty|was not given"):
        token.opened(PROOF, text, "id")


def longest(number: int) -> str:
    """A name of 256 characters in which there is nothing to compress."""
    return (
        b2a_base64(shake_256(b"%d" % number).digest(192), newline=False).translate(bytes.maketrans(b"+/", b"-."))
    ).decode()


@pytest.mark.parametrize("count", [1, 2, 30, 300, MAX_SLOTS])
@pytest.mark.parametrize("subject", [b"s" * 16, b"s" * (16 + 256)])
@pytest.mark.parametrize("kept", [(), (("e" * (MOST_KEPT - 1), "v"),)])
def test_an_id_is_short_for_the_longest_names_of_all_slots(
    count: int, subject: bytes, kept: tuple[tuple[str, str], ...]
) -> None:
    rules = [longest(number) for number in range(count)]
    gave = tuple(Delivered(rule, longest(-1), rule[::-1]) for rule in rules)
    number = f"{253_402_300_799_999_999:x}-{token_urlsafe(9)}-{2**64 - 1:x}"
    statement = token.stated(PROOF, longest(-2), DIGEST, gave, token.room(len(subject), PROOF), kept)
    text = token.sealed(statement, number, subject).decode()
    assert len(text) <= token.LIMIT == 1024
    claim = token.opened(PROOF, text, "id")
    assert (claim.number, claim.subject, claim.point, claim.snapshot) == (number, subject, longest(-2), DIGEST)
    assert (claim.delivered, claim.unnamed, claim.kept) == ((), count, kept)
    assert all(claim.may_have_given(rule) for rule in rules)
    wrong = sum(claim.may_have_given(longest(number)) for number in range(2000, 3000))
    # Names that long, of an id that holds the subject's too, leave a filter little room.
    assert (kept and len(subject) > 16) or wrong <= {1: 0, 2: 0, 30: 0, 300: 300}.get(count, 700)


@pytest.mark.parametrize(("count", "named"), [(1, True), (20, True), (100, True), (400, False)])
def test_an_id_names_what_was_delivered_while_that_fits(count: int, *, named: bool) -> None:
    gave = tuple(Delivered(f"spring-offer-{number}", "show-card", "offers") for number in range(count))
    claim = token.opened(PROOF, issued("home.banner", gave, b"s" * 16), "id")
    assert (claim.delivered, claim.unnamed) == ((gave, 0) if named else ((), count))
    assert claim.may_have_given("spring-offer-7") is not named
    assert not claim.may_have_given("spring-offer-401")


def report(store: Store, event_id: str, asked: bytes) -> Recorded:
    key = store.keys.of_asked(asked)
    told = Report(key, T0, "", Event(event_id, "", "arbiter.outcome", T0), "r")
    became: Became
    (became,) = store.write(RecordReports([told])).result()
    return became.recorded


def test_ids_hold_when_the_store_is_opened_again_and_not_with_another_key(tmp_path: Path) -> None:
    with Store.open(tmp_path, secrets=OLD) as store:
        store.ingest([Event("1", "ann", "see", T0)]).result()
        text = token.sealed(token.stated(store.keys.proof, "home", DIGEST, (), 900), NUMBER, store.keys.asked("ann"))
    with Store.open(tmp_path, secrets=OLD) as store:
        claim = token.opened(store.keys.proof, text.decode(), "id")
        assert report(store, "arbiter.1", claim.subject) is Recorded.ACCEPTED
        assert len(store.events("ann")) == 2
    with Store.open(tmp_path, secrets=NEW) as store, pytest.raises(InvalidField, match=r"older than the present"):
        token.opened(store.keys.proof, text.decode(), "id")


def test_while_a_store_turns_to_another_key_a_report_finds_the_subject_where_it_lies(tmp_path: Path) -> None:
    with Store.open(tmp_path, secrets=OLD) as store:
        store.ingest([Event("1", each, "see", T0) for each in ("ann", "bob", "device")]).result()
        store.link("device", "ann").result()
    with Store.open(tmp_path, secrets=NEW) as store:
        asked = {each: store.keys.asked(each) for each in ("ann", "bob", "device", "cyd")}
        assert all(len(each) > 16 for each in asked.values())
        assert store.rekey(["bob"]).result() == 1  # before its report: it lies under the present key by then
        for subject, each in asked.items():
            assert report(store, f"arbiter.{subject}", each) is Recorded.ACCEPTED
        assert [len(store.events(each)) for each in ("ann", "bob", "device", "cyd")] == [
            3,
            2,
            3,
            1,
        ]  # both had an event `1`
        for subject, each in asked.items():
            assert report(store, f"arbiter.{subject}", each) is Recorded.DUPLICATE
