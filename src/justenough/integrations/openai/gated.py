"""`gated`: a client of the `openai` library whose thoughts stop as soon as the calibration allows."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, TypeVar, cast

from justenough.calibration.calibration import Calibration, require_calibration
from justenough.errors import InputError, MissingExtra
from justenough.signal.thought import ThoughtFormat

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

log: Final = logging.getLogger("justenough.openai")
Client = TypeVar("Client", bound="OpenAI | AsyncOpenAI")


def gated(
    client: Client,
    calibration: Calibration,
    *,
    models: tuple[str, ...] = (),
    thought: ThoughtFormat | None = None,
    default_temperature: float | None = None,
) -> Client:
    """A copy of a client of the `openai` library that ends a thought where the calibration allows it.

    It has the client's address, key, headers, timeouts, retries and HTTP client. Completions go through the gateway's
    own code, in this process; every other request is sent as it is. The reply of a gated completion, or the chunk with
    the finish reason in its stream, has the gateway's report as `justenough`. Closing the copy also closes the HTTP
    client.

    `models` are further names of the calibrated model. `thought` is the format of its thought if the calibration does
    not have it. `default_temperature` is the server's temperature for requests that state none. If the calibration
    cannot save anything, the log has a warning. Raises `InputError`, `MissingExtra`.
    """
    try:
        import aiohttp  # noqa: F401
        import openai
    except ImportError as error:
        raise MissingExtra(error.name or "openai", extra="openai") from error
    from justenough.gateway.settings import GatewaySettings, Limits
    from justenough.integrations.openai.call import Gate
    from justenough.integrations.openai.senders import AsyncSender, SyncSender, library_of
    from justenough.integrations.openai.transports import AsyncGated, SyncGated

    own = client._client if isinstance(client, openai.OpenAI | openai.AsyncOpenAI) else None
    if own is None or (http := library_of(own)) is None:
        raise InputError(f"{type(client).__name__} cannot be gated", hint="give an openai.OpenAI or openai.AsyncOpenAI")
    require_calibration(calibration)
    settings = GatewaySettings(
        upstream=str(client.base_url),
        calibration=calibration,
        models=models,
        thought=thought,
        default_temperature=default_temperature,
        # A service without a server has no page that shows the audit or the overshoot.
        audit_share=0.0,
        overshoot_every_s=math.inf,
        limits=Limits(max_concurrent=1_000_000),
    )
    for caution in settings.cautions:
        log.warning("%s", caution)
    if isinstance(client, openai.AsyncOpenAI):
        mixed = type("AsyncTransport", (AsyncGated, http.AsyncBaseTransport), {})
        kind, transport = http.AsyncClient, mixed(Gate(settings, AsyncSender(own, http)), own)
    else:
        mixed = type("Transport", (SyncGated, http.BaseTransport), {})
        kind, transport = http.Client, mixed(Gate(settings, SyncSender(own, http)), own)
    outer = kind(
        transport=transport,
        headers=own.headers,
        params=own.params,
        cookies=own.cookies,
        timeout=own.timeout,
        follow_redirects=own.follow_redirects,
    )
    return cast("Client", client.with_options(http_client=outer))
