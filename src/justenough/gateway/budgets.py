"""The completion tokens that a request may use: its own budget, the operator's limit, and what its account has left.

Tokens are reserved before the request is sent, and the upstream gets their number as its limit. When the request is
over, the tokens that were generated are committed and the others are released.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from justenough.budget import Accounts, Reservation, Standing
from justenough.errors import BudgetError, LedgerError
from justenough.gateway.exchange import Refused
from justenough.gateway.request import CompletionRequest
from justenough.gateway.settings import LEAST, GatewaySettings
from justenough.trace import Json

log: Final = logging.getLogger("justenough.gateway")

UNNAMED: Final = 16_384
"""Tokens reserved for a request without a limit, if the operator sets none either."""
ALL: Final = "all"
SAVE_EVERY_S: Final = 0.1
"""Interval at which the tokens of running requests are saved, which limits what a crash can lose."""
GENERATES_NOTHING: Final = frozenset(
    f"{root}/{path}"
    for root in ("", "/v1", "/api")
    for path in (
        *("embeddings", "embedding", "embed", "rerank", "reranking", "score", "tokenize", "detokenize"),
        *("apply-template", "messages/count_tokens", "show"),
    )
)
"""Paths of POST requests without completion tokens. A token budget allows them without counting."""


class Allowance:
    """The tokens that one request may use; settled at the end of its `with` block."""

    def __init__(self, budgets: Budgets, *, limit: int | None, soft: bool, reservation: Reservation | None) -> None:
        self.limit = limit
        """Most completion tokens of the request, all choices together; None: no limit."""
        self.soft = soft
        """Whether the limit is a budget, which must leave room for an answer, and not the client's `max_tokens`."""
        self.used = 0
        self.unseen: float = 0
        """Tokens that may have been generated beyond `used`; they are charged too, up to the limit."""
        self.counting: Callable[[], int] | None = None
        self._budgets = budgets
        self._reservation = reservation

    @property
    def counted(self) -> bool:
        """Whether the generated tokens must be counted."""
        return self._reservation is not None

    def save(self) -> None:
        """Write the tokens so far to the account, so a crash does not lose them."""
        reservation = self._reservation
        if reservation is None or reservation.settled:
            return
        seen = max(0, self.used, self.counting() if self.counting is not None else 0)
        if (used := min(seen, reservation.limit)) > reservation.used:
            reservation.use(used - reservation.used)

    def __enter__(self) -> Allowance:
        self._budgets.running.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._budgets.running.discard(self)
        reservation = self._reservation
        if reservation is None or reservation.settled:
            return
        # The upstream's own count may be negative.
        seen = max(0, self.used)
        # A client that leaves is cancelled. The upstream may have begun before its first event came.
        most = seen + self.unseen if kind is not asyncio.CancelledError else max(seen + self.unseen, LEAST)
        used = max(seen, int(min(most, reservation.limit)))
        self._budgets.unseen_tokens += used - seen
        self._budgets.settle(reservation, used)


@dataclass(slots=True)
class Budgets:
    """All accounts; `close` it at the end."""

    settings: GatewaySettings
    accounts: Accounts | None = None
    context: int | None = None
    """Context length of the upstream's model, if known; vLLM refuses a larger limit."""
    unseen_tokens: int = 0
    """Tokens that were charged although their real number is unknown."""
    overrun_tokens: int = 0
    """Tokens beyond the limit that no account could pay."""
    writable: bool = True
    """Whether the last change of an account could be saved."""
    running: set[Allowance] = field(default_factory=set)
    unsettled: list[tuple[Reservation, int]] = field(default_factory=list)
    """Finished requests and their tokens, while the ledger cannot be written."""
    _saving: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        budget = self.settings.budget
        if budget is not None:
            self.accounts = Accounts(budget.tokens, per=budget.per, path=budget.file)

    def watch(self) -> None:
        """Start to save the tokens of running requests."""
        if self.settings.budget is not None and self.settings.budget.file is not None:
            self._saving = asyncio.get_running_loop().create_task(self._save_running())

    async def _save_running(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            try:
                for allowance in list(self.running):
                    allowance.save()
            except LedgerError as error:
                self._failed(error)
            self.settle_again()

    def close(self) -> None:
        """Settle everything and close the file."""
        if self._saving is not None:
            self._saving.cancel()
        self.settle_again()
        if self.accounts is not None:
            try:
                self.accounts.close()
            except LedgerError as error:
                log.error("the ledger does not hold the last tokens: %s", error)

    def settle(self, reservation: Reservation, used: int) -> None:
        """Commit what a request used, later if the ledger cannot be written now."""
        self.unsettled.append((reservation, used))
        self.settle_again()

    def settle_again(self) -> None:
        """Commit what could not be written before."""
        while self.unsettled:
            reservation, used = self.unsettled.pop(0)
            try:
                reservation.commit(min(used, reservation.limit))
            except LedgerError as error:
                self.unsettled.insert(0, (reservation, used))
                self._failed(error)
                return
            self._succeeded()
            self._take(reservation.key, used - reservation.limit)

    def _failed(self, error: LedgerError) -> None:
        if self.writable:
            log.error("requests are refused until the ledger can be written: %s", error)
        self.writable = False

    def _succeeded(self) -> None:
        if not self.writable:
            log.warning("the ledger can be written again")
        self.writable = True

    def account(self, key: str) -> str:
        """The name of the account for a client's key."""
        budget = self.settings.budget
        if budget is None or self.accounts is None or budget.scope == "all":
            return ALL
        return self.accounts.name(key)

    def allow(self, request: CompletionRequest, account: str) -> Allowance:
        """Reserve tokens for a request; raises `Refused` if none are left or its tokens cannot be limited."""
        # Some servers generate a token for `max_tokens: 0`, so one per choice is reserved.
        own = None if request.max_tokens is None else max(1, request.max_tokens) * request.choices
        limits = (request.control.budget, self.settings.limits.max_request_tokens)
        budgets = [each for each in limits if each is not None]
        if self.accounts is None and not budgets:
            return Allowance(self, limit=None, soft=False, reservation=None)
        if not request.readable:
            raise Refused(400, "under a token budget the request must be readable", code="unreadable")
        limit = min([*budgets, *([own] if own is not None else [])], default=UNNAMED)
        if own is None and self.context is not None:
            limit = min(limit, self.context * request.choices)
        if limit < request.choices:
            message = f"a budget of {limit} tokens is too small for {request.choices} choices"
            raise Refused(400, message, code="invalid_justenough")
        reservation = None
        if self.accounts is not None:
            reservation = self._reserved(self.accounts, account, limit, least=request.choices)
            limit = reservation.limit
        # If budget and `max_tokens` are equal, the budget counts: the client wants an answer within it.
        soft = own is None or limit < own or limit in budgets
        return Allowance(self, limit=limit, soft=soft, reservation=reservation)

    def _take(self, account: str, tokens: int) -> None:
        """Charge tokens beyond a reservation, as far as the account has them."""
        if self.accounts is None or tokens <= 0:
            return
        log.warning("the upstream generated %d tokens more than it was allowed", tokens)
        try:
            reservation = self.accounts.reserve(account, tokens, at_least=1)
            self.unsettled.append((reservation, reservation.limit))
            tokens -= reservation.limit
        except BudgetError as error:
            if isinstance(error, LedgerError):
                self._failed(error)
        self.overrun_tokens += tokens

    def _reserved(self, accounts: Accounts, account: str, limit: int, *, least: int) -> Reservation:
        self.settle_again()
        try:
            reservation = accounts.reserve(account, limit, at_least=max(min(limit, LEAST), least))
        except LedgerError as error:
            self._failed(error)
            message = "the gateway's ledger of tokens cannot be written"
            raise Refused(503, message, code="ledger_unavailable", retry_after=5) from error
        except BudgetError as error:
            raise self._spent(accounts, account) from error
        self._succeeded()
        return reservation

    def _spent(self, accounts: Accounts, account: str) -> Refused:
        # If a new minute has begun meanwhile, the account has no entry yet.
        standing = accounts.standing().get(account, Standing(0, 0, accounts.tokens, 0))
        left = f"{standing.remaining} of {accounts.tokens} completion tokens are left"
        if (resets := accounts.resets_in_s) is not None:
            wait = max(1, math.ceil(resets))
            message = f"the token budget of this minute is spent: {left}; it is renewed in {wait} s"
        elif standing.reserved:
            wait = 1
            message = f"{left}, {standing.reserved} more are reserved by running requests, which may release some"
        else:
            message, code = f"the token budget is spent: {left}", "insufficient_quota"
            return Refused(429, message, code=code, kind=code, headers=[(b"x-should-retry", b"false")])
        return Refused(429, message, code="rate_limit_exceeded", kind="tokens", retry_after=wait)

    def summary(self) -> Json:
        """The accounts for the status; null without a budget."""
        budget, accounts = self.settings.budget, self.accounts
        if budget is None or accounts is None:
            return None
        resets = accounts.resets_in_s
        return {
            "tokens": accounts.tokens,
            "per": accounts.per,
            "scope": budget.scope,
            "kept": budget.file is not None,
            "writable": self.writable,
            "resets_in_s": None if resets is None else round(resets, 1),
            "unseen_tokens": self.unseen_tokens,
            "overrun_tokens": self.overrun_tokens,
            "accounts": {name: dict(standing._asdict()) for name, standing in accounts.standing().items()},
        }

    def totals(self) -> dict[str, float | None]:
        """The sums over all accounts for the metrics."""
        if self.accounts is None:
            return {}
        rows = list(self.accounts.standing().values())
        return {
            "budget_spent_tokens": sum(row.spent for row in rows),
            "budget_reserved_tokens": sum(row.reserved for row in rows),
            "budget_unseen_tokens": self.unseen_tokens,
        }
