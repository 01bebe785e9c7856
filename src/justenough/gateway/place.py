"""The paths of OpenAI's protocol, in the forms in which clients send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import quote

Kind = Literal["chat", "completion", "response", "message", "ollama_chat", "ollama_generate"]

NAMES: Final[Mapping[Kind, str]] = {
    "chat": "chat/completions",
    "completion": "completions",
    "response": "responses",
    "message": "messages",
    "ollama_chat": "api/chat",
    "ollama_generate": "api/generate",
}
KINDS: Final[Mapping[str, Kind]] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
"""The usual paths of requests that may be gated."""
OTHERS: Final[Mapping[str, Kind]] = {
    "/v1/responses": "response",
    "/v1/messages": "message",
    "/api/chat": "ollama_chat",
    "/api/generate": "ollama_generate",
}
"""The usual paths of other APIs."""
_PATHS: Final = re.compile(
    r"(?P<chat>.*)/chat/completions"
    r"|(?P<completion>|.*/(?:v\d\w*|openai|deployments/[^/]+))/completions"
    r"|(?P<response>|.*/(?:v\d\w*|openai))/responses"
    r"|(?P<message>|.*/(?:v\d\w*|anthropic))/messages"
    r"|(?P<ollama_chat>.*)/api/chat"
    r"|(?P<ollama_generate>.*)/api/generate",
    re.DOTALL,
)
_DEPLOYMENT: Final = re.compile(r"/deployments/([^/]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request for a completion goes."""

    kind: Kind
    root: str = "/v1"
    """The path before the protocol's own names, such as `/openai/deployments/gpt-5`; may be empty."""
    query: str = ""
    """With its question mark."""
    deployment: str | None = None
    """The model, if the path names it."""

    def target(self, kind: Kind | None = None) -> str:
        """Path and query of a request of this kind, or of the request itself."""
        return f"{self.root}/{NAMES[kind or self.kind]}{self.query}"

    @property
    def of_chat(self) -> Place:
        """Where the same server takes chats."""
        # Only OpenAI's own protocols share a query, which may have the version.
        if self.kind == "response":
            return replace(self, kind="chat")
        return replace(self, kind="chat", root=self.root if self.kind == "message" else "/v1", query="")

    @property
    def usual(self) -> Place:
        """The same at `/v1`, the only form that vLLM and llama.cpp serve."""
        return replace(self, root="/v1")


def collapsed(path: str) -> str:
    """A path without empty parts: double slashes become one, and the last one is removed."""
    return re.sub("/{2,}", "/", path).rstrip("/")


@lru_cache(maxsize=64)
def place_of(path: str, target: str) -> Place | None:
    """The place of a completion, None for any other path; `target` is the path as it came, with its query."""
    if (match := _PATHS.fullmatch(collapsed(path))) is None:
        return None
    kind, root = next((kind, match[kind]) for kind in NAMES if match[kind] is not None)
    sent, mark, query = target.partition("?")
    suffix = f"/{NAMES[kind]}"
    # If the protocol's own names were encoded, the other part is encoded anew.
    raw = collapsed(sent)
    named = _DEPLOYMENT.search(root)
    return Place(
        kind=kind,
        root=raw.removesuffix(suffix) if raw.endswith(suffix) else quote(root),
        query=mark + query,
        deployment=named[1] if named else None,
    )
