"""The table and the picture of the kinds of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from justenough.report.data import Contents, Sheet
from justenough.report.plots import BASE, BLUE, GREY, LEFT, ORANGE, RIGHT, TOP, bar, caption, grid, svg
from justenough.report.tokenkinds import TokenKind
from justenough.report.words import count
from justenough.stats.text import number, percent, spread


def tokens(contents: Contents) -> Sheet | None:
    """One row for each kind of tokens."""
    if not (kinds := contents.token_kinds):
        return None
    rows = [
        (
            kind.name,
            count(kind.tokens),
            percent(kind.of_tokens),
            percent(kind.of_entropy),
            number(kind.right, digits=3),
            number(kind.wrong, digits=3),
            spread(kind.auroc, digits=3),
            spread(kind.within, digits=3),
        )
        for kind in kinds
    ]
    header = (
        "tokens of step 1",
        "number",
        "of all tokens",
        "of the entropy",
        "bits, right",
        "bits, wrong",
        "AUROC alone",
        "within groups",
    )
    note = (
        "Mean bits of a token in right and in wrong first answers. Percentages are shares of all entropy. AUROC: of the"
        " mean over the tokens of one kind; within groups, over pairs of answers of one group."
    )
    return Sheet("tokens", "Which tokens carry the entropy?", header, rows, note)


def tokens_picture(contents: Contents) -> str:
    """Two bars for each kind: its mean bits in right and in wrong answers."""
    kinds = contents.token_kinds
    most = max((value or 0.0 for kind in kinds for value in (kind.right, kind.wrong)), default=0.0) or 1.0
    return svg([[*grid(most), *_bars(kinds, most)]], label="Mean bits of a token in right and in wrong first answers")


def _bars(kinds: Sequence[TokenKind], most: float) -> Iterator[str]:
    wide = (RIGHT - LEFT) / len(kinds)
    for at, kind in enumerate(kinds):
        left = LEFT + wide * at
        for shift, value, colour in ((0.14, kind.right, BLUE), (0.52, kind.wrong, ORANGE)):
            if value is not None:
                yield bar(left + shift * wide, (BASE - TOP) * value / most, 0.34 * wide, colour=colour)
        yield caption(left + wide / 2, BASE + 18, kind.name, colour=GREY)
        yield caption(left + wide / 2, BASE + 34, percent(kind.of_entropy), colour=GREY)
    yield caption(LEFT, TOP - 12, "right", colour=BLUE, anchor="start")
    yield caption(LEFT + 44, TOP - 12, "wrong", colour=ORANGE, anchor="start")
