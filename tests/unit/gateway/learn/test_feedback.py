"""Labels from clients."""

from __future__ import annotations

import json

import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.learn import feedback
from justenough.gateway.learn.feedback import Feedback


def label(answer_id: str, correct: bool) -> bytes:
    return json.dumps({"id": answer_id, "correct": correct}).encode()


def test_shares_of_right_answers_by_outcome() -> None:
    labels = Feedback()
    for number, outcome in enumerate(["stopped", "stopped", "finished"]):
        labels.remember(str(number), outcome)
        labels.label(label(str(number), number > 0))
    summary = labels.summary()
    assert (summary["labels"], summary["right"]) == (3, 2)
    shares = summary["right_by_outcome"]
    assert isinstance(shares, dict)
    assert {name: share["value"] for name, share in shares.items() if isinstance(share, dict)} == {
        "finished": 1.0,
        "stopped": 0.5,
    }


def test_a_second_label_replaces_the_first() -> None:
    labels = Feedback()
    labels.remember("a", "stopped")
    labels.label(label("a", False))
    assert labels.label(label("a", True)).correct
    assert (labels.summary()["labels"], labels.summary()["right"]) == (1, 1)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": "a"}', b'{"id": 1, "correct": true}', b'{"id":"a","correct":1}'])
def test_an_invalid_label_is_refused(body: bytes) -> None:
    labels = Feedback()
    labels.remember("a", "stopped")
    with pytest.raises(Refused) as refused:
        labels.label(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_feedback")


def test_only_recent_answers_can_be_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "_MOST", 2)
    labels = Feedback()
    labels.remember(None, "stopped")
    for name in "abc":
        labels.remember(name, "stopped")
    for name in "bc":
        labels.label(label(name, True))
    with pytest.raises(Refused) as refused:
        labels.label(label("a", True))
    assert (refused.value.status, refused.value.code) == (404, "unknown_answer")
