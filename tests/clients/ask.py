"""What every client asks, and how it tells what it got. Run in the clients' environment: `ask_NAME.py FILE URL …`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

MODEL: Final = "justenough-embedded"
QUESTION: Final = "47*36"
MESSAGES: Final = [{"role": "user", "content": QUESTION}]
SETTINGS: Final[dict[str, Any]] = {"temperature": 0.0, "seed": 1, "max_tokens": 400}


Results = dict[str, Any]
"""From a call's name to what the client made of it."""


def ask_all(asking: Callable[[str], Awaitable[Results]]) -> None:
    """Ask each server, and write the results of all to the file: clients also print."""
    file, *urls = sys.argv[1:]

    async def all_of_them() -> dict[str, Results]:
        return {url: await asking(url) for url in urls}

    Path(file).write_text(json.dumps(asyncio.run(all_of_them()), default=_plain))


def _plain(value: Any) -> Any:
    """A client's own object as the members it has."""
    return value.model_dump() if hasattr(value, "model_dump") else vars(value)
