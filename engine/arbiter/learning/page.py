"""What models read and said, as one page of HTML that needs nothing beside it.

Law: plain data in, text out; all that is not ours is escaped.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from arbiter.learning.drift import Drift

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em .2em 0; text-align: left }}
td.number {{ text-align: right }} .alarm {{ color: #b00 }} svg {{ display: block; margin: .3em 0 1.5em }}
small {{ color: #666 }}
</style></head><body><h1>{title}</h1>{body}</body></html>
"""
_BAR, _HIGH, _WIDE = 24, 90, 9
_LINE, _LONG, _LABEL = 22, 520, 150
_TONES: Final = (
    "#1f5fa8",
    "#e0a030",
    "#3a8f5c",
    "#b5484a",
    "#7a5aa6",
    "#6b7a88",
    "#c8d7ea",
    "#d8c39a",
    "#a5cdb3",
    "#ddd",
)


def page(title: str, body: Iterable[str]) -> str:
    """The whole page; `title` is escaped, `body` is HTML."""
    return _PAGE.format(title=html.escape(title), body="".join(body))


def line(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{html.escape(text)}</p>"


def heading(text: str) -> str:
    """A heading below the title."""
    return f"<h2>{html.escape(text)}</h2>"


def alarms(found: Sequence[str], otherwise: str = "Nothing has shifted.") -> str:
    """What is no longer as it was, in words; `otherwise` where nothing is."""
    listed = "".join(f'<li class="alarm">{html.escape(each)}</li>' for each in found)
    return f"<ul>{listed}</ul>" if listed else line(otherwise)


def part(each: Drift) -> str:
    """One input or output, then and now."""
    index = "none" if each.psi is None else f"{each.psi:.3f} (by chance up to {each.chance:.3f})"
    tone = ' class="alarm"' if each.alarms else ""
    return (
        f"<h3{tone}>{html.escape(each.name)}</h3><p>Stability index {index}; missing {each.missing:.1%}, were "
        f"{each.missing_before:.1%}; out of range {each.outside:.1%}.</p>{_bars(each)}"
    )


def sizes(name: str, moments: Sequence[str], words: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """How large each of `words` is over time, as shares: a bar for each moment; `counts` are by moment and word."""
    rows = []
    for number, (moment, own) in enumerate(zip(moments, counts, strict=True)):
        top, left = number * _LINE, float(_LABEL)
        rows.append(f'<text x="0" y="{top + 15}" font-size="12">{html.escape(moment)}</text>')
        for word, count, tone in zip(words, own, _cycled(len(words)), strict=True):
            wide = count / max(1, sum(own)) * _LONG
            title = f"<title>{html.escape(word)}: {count:,}, {count / max(1, sum(own)):.1%}</title>"
            rows.append(
                f'<rect x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{_LINE - 4}" fill="{tone}">{title}</rect>'
            )
            left += wide
    key = " ".join(
        f'<span style="color: {tone}">&#9632;</span> {html.escape(word)}'
        for word, tone in zip(words, _cycled(len(words)), strict=True)
    )
    drawn = f'<svg width="{_LABEL + _LONG}" height="{len(moments) * _LINE}" role="img" aria-label="sizes over time">'
    return f"<h3>{html.escape(name)} over time</h3><p>{key}</p>{drawn}{''.join(rows)}</svg>"


def moves(said: str, words: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Who went where: a row for each word from which, a column for each to which."""
    head = "".join(f"<th>{html.escape(word)}</th>" for word in words)
    rows = "".join(
        f"<tr><th>{html.escape(word)}</th>" + "".join(f'<td class="number">{count:,}</td>' for count in own) + "</tr>"
        for word, own in zip(words, counts, strict=True)
    )
    return f"<p>{html.escape(said)}</p><table><tr><th>from \\ to</th>{head}</tr>{rows}</table>"


def _cycled(count: int) -> list[str]:
    return [_TONES[number % len(_TONES)] for number in range(count)]


def _bars(each: Drift) -> str:
    """Shares by bin: light as they were, dark as they are."""
    most = max([*each.before, *each.now, 1e-9])
    parts = []
    for number, (name, then, now) in enumerate(zip(each.bins, each.before, each.now, strict=True)):
        for shift, share, tone in ((0, then, "#c8d7ea"), (_WIDE, now, "#1f5fa8")):
            high = share / most * _HIGH
            title = f"<title>{html.escape(name)}: {share:.1%}</title>"
            parts.append(
                f'<rect x="{number * _BAR + shift}" y="{_HIGH - high:.1f}" width="{_WIDE}" height="{high:.1f}" '
                f'fill="{tone}">{title}</rect>'
            )
    wide = len(each.bins) * _BAR
    return f'<svg width="{wide}" height="{_HIGH}" role="img" aria-label="shares by bin">{"".join(parts)}</svg>'
