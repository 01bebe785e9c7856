"""Where in the text the entropy of the first step is: in numbers, operators, words or signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from justenough.stats import Estimate, auroc_interval
from justenough.trace import Trace

KINDS: Final = ("number", "operator", "word", "end of a word", "sign", "line break")
_OPERATORS: Final = frozenset("+-*/=<>^%×÷−·")


class TokenKind(NamedTuple):
    """The tokens of one kind in all first steps with texts."""

    name: str
    tokens: int
    of_tokens: float
    """Share of all tokens."""
    of_entropy: float
    """Share of the sum of all entropies."""
    right: float | None
    """Mean bits in right answers; None without such a token."""
    wrong: float | None
    auroc: Estimate | None
    """How well the mean over this kind alone separates right from wrong answers."""
    within: Estimate | None
    """The same over pairs of one group only; None without groups."""


def kind_of(text: str) -> str:
    """The kind of a token, by its text.

    Most tokenizers keep the blank before a word in its first token. So letters without one are the rest of a word, or
    its beginning after a line break or a sign.
    """
    plain = text.strip()
    if not plain:
        return "line break"
    if any(letter.isdigit() for letter in plain):
        return "number"
    if all(letter in _OPERATORS for letter in plain):
        return "operator"
    if not any(letter.isalpha() for letter in plain):
        return "sign"
    return "word" if text[:1].isspace() or plain[:1].isupper() else "end of a word"


def token_kinds(traces: Sequence[Trace]) -> list[TokenKind]:
    """The kinds that occur; empty if the traces have no texts or no entropies of single tokens."""
    known = [
        (trace.steps[0].token_texts, trace.steps[0].entropies, trace.steps[0].is_correct, trace.group)
        for trace in traces
        if trace.steps[0].token_texts and len(trace.steps[0].entropies or ()) == len(trace.steps[0].token_texts)
    ]
    rows = [
        (problem, kind_of(text), bits, correct)
        for problem, (texts, entropies, correct, _) in enumerate(known)
        for text, bits in zip(texts, entropies or (), strict=True)
    ]
    if not rows:
        return []
    problem, names = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    bits, correct = np.array([row[2] for row in rows]), np.array([row[3] for row in rows], dtype=bool)
    graded = np.array([is_correct for _, _, is_correct, _ in known], dtype=bool)
    groups = np.array([group or "" for *_, group in known])
    kinds = []
    for name in KINDS:
        of_kind = names == name
        if not of_kind.any():
            continue
        sums = np.bincount(problem[of_kind], bits[of_kind], minlength=len(known))
        counts = np.bincount(problem[of_kind], minlength=len(known))
        has = counts > 0
        right, wrong = (
            float(bits[of_kind & rows_of].mean()) if (of_kind & rows_of).any() else None
            for rows_of in (correct, ~correct)
        )
        means, of_group = sums[has] / counts[has], groups[has].tolist()
        kinds.append(
            TokenKind(
                name=name,
                tokens=int(of_kind.sum()),
                of_tokens=float(of_kind.mean()),
                of_entropy=float(bits[of_kind].sum() / bits.sum()) if bits.sum() else 0.0,
                right=right,
                wrong=wrong,
                auroc=auroc_interval(means, graded[has]),
                within=auroc_interval(means, graded[has], groups=of_group) if groups.any() else None,
            )
        )
    return kinds
