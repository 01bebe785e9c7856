"""A short run of `benchmarks.request_lines`: raw bytes, and no connection to another host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from random import Random

import pytest

from benchmarks.request_lines import FORMS, Listener, fuzz, request


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_two_thousand_odd_requests_reach_nobody_but_the_operators_server() -> None:
    outcome = asyncio.run(fuzz(inputs=2000, seed=1))
    assert outcome.failures == []
    assert sum(outcome.answers.values()) == 2000
    # It is only worth something where some are relayed and some refused.
    assert outcome.answers["200"] > 100
    assert outcome.answers["400"] > 100


def test_the_fuzz_would_notice_a_connection_to_another_host() -> None:
    async def scenario() -> Listener:
        stranger = Listener()
        await stranger.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", stranger.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: evil.test\r\n\r\n")
        await reader.read()
        writer.close()
        await stranger.stop()
        return stranger

    stranger = asyncio.run(scenario())
    assert (stranger.connections, len(stranger.wrong)) == (1, 1)


def test_every_form_of_target_occurs() -> None:
    seen = b"".join(request(Random(number), 1) for number in range(3000))
    for form in FORMS:
        assert form.format(host="127.0.0.1", port=1).encode() in seen
