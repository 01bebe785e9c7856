"""Merges the parts of an answer, as the chunks of a stream bring them, to the members of an answer in one piece."""

from __future__ import annotations

from typing import Final

from justenough.trace import Json

TEXTS: Final = frozenset(
    (
        *("content", "text", "refusal", "reasoning_content", "reasoning", "reasoning_text", "thinking", "thought"),
        *("arguments", "summary", "data", "transcript"),
    )
)
"""Members whose pieces are always joined."""


class Merged:
    """An object, merged from parts at any level.

    Texts are joined, lists are lengthened, and items with an index are merged with the item of this index. Of numbers,
    the last one stays. Null replaces nothing, and no value of another type replaces a text.
    """

    def __init__(self, *, joins: bool = True) -> None:
        """`joins`: whether texts of other names than `TEXTS` are joined too; otherwise the last one stays."""
        self._joins = joins
        self._plain: dict[str, Json] = {}
        self._texts: dict[str, list[str | list[Json]]] = {}
        self._objects: dict[str, Merged] = {}
        self._lists: dict[str, _Items] = {}

    def add(self, part: dict[str, Json]) -> None:
        """Add the next part."""
        for key, value in part.items():
            if value is None:
                self._plain.setdefault(key, None)
            elif key in TEXTS and not isinstance(value, dict):
                # A client could not use another value than a text or a list of parts.
                if isinstance(value, str | list):
                    self._texts.setdefault(key, []).append(value)
            elif isinstance(value, str) and self._joins:
                self._texts.setdefault(key, []).append(value)
            elif isinstance(value, dict):
                self._objects.setdefault(key, Merged(joins=self._joins)).add(value)
            elif isinstance(value, list):
                self._lists.setdefault(key, _Items()).extend(value)
            else:
                self._plain[key] = value

    def whole(self) -> dict[str, Json]:
        """The object so far."""
        texts = {key: _joined(texts, label=key not in TEXTS) for key, texts in self._texts.items()}
        objects: dict[str, Json] = {key: value.whole() for key, value in self._objects.items()}
        lists: dict[str, Json] = {key: items.whole() for key, items in self._lists.items()}
        return self._plain | objects | lists | texts


class _Items:
    """A list, merged from parts."""

    def __init__(self) -> None:
        self._items: list[Json | Merged] = []
        self._by_index: dict[int, Merged] = {}

    def extend(self, part: list[Json]) -> None:
        for item in part:
            index = item.get("index") if isinstance(item, dict) else None
            if not isinstance(item, dict) or not isinstance(index, int):
                self._items.append(item)
                continue
            if index not in self._by_index:
                self._by_index[index] = merged = Merged()
                self._items.append(merged)
            self._by_index[index].add(item)

    def whole(self) -> Json:
        return [item.whole() if isinstance(item, Merged) else item for item in self._items]


def _joined(texts: list[str | list[Json]], *, label: bool) -> Json:
    """One text, or a list of parts if some of the texts came in parts.

    `label`: a text that is the same in all parts may be a label, which servers repeat. Some leave it empty later.
    """
    if label:
        texts = [text for text in texts if text] or texts[:1]
        if all(text == texts[0] for text in texts):
            return texts[0]
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) == len(texts):
        return "".join(plain)
    parts: list[Json] = []
    for text in texts:
        parts += [{"type": "text", "text": text}] if isinstance(text, str) else text
    return parts
