"""How many completion tokens a request may have: its own budget, the operator's bound, and what its account has left.

Tokens are set aside before the upstream is asked, which is told to stop there; what was really generated is committed
when the request is over, however it ends, and the rest is free again.
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
from justenough.gateway.request import Asked
from justenough.gateway.settings import GatewaySettings
from justenough.trace import Json

log: Final = logging.getLogger("justenough.gateway")

UNNAMED: Final = 16_384
"""Tokens set aside for a request that names no limit, where the operator names none either."""
LEAST: Final = 16
"""Fewer tokens are no answer: better refused, and asked again later."""
ALL: Final = "all"
NOTED_EVERY_S: Final = 0.1
"""What the death of the process may lose of a request under way; at every token it would cost too much."""
GENERATES_NOTHING: Final = frozenset(
    f"{root}/{path}"
    for root in ("", "/v1")
    for path in ("embeddings", "embedding", "rerank", "reranking", "score", "tokenize", "detokenize", "apply-template")
)
"""Paths that take a POST and cost no completion token: all that a token budget lets through uncounted."""


class Allowance:
    """One request's part of the budgets; leaving the block settles it."""

    def __init__(self, budgets: Budgets, *, limit: int | None, soft: bool, reservation: Reservation | None) -> None:
        self.limit = limit
        """Most completion tokens of the request, all choices together; None: nobody bounds it but itself."""
        self.soft = soft
        """Whether the bound is a budget, within which a thought is to be answered, not the client's `max_tokens`."""
        self.used = 0
        """Tokens generated so far, as far as they were seen."""
        self.unseen = False
        """Whether an unknown number was generated: then the whole limit counts."""
        self.counting: Callable[[], int] | None = None
        """Where the tokens of a request under way can be read."""
        self._budgets = budgets
        self._reservation = reservation

    @property
    def counted(self) -> bool:
        """Whether what is generated has to be counted."""
        return self._reservation is not None

    def note(self) -> None:
        """Tell the account what has been generated so far: then the death of this process does not lose it."""
        held = self._reservation
        if held is None or held.settled:
            return
        seen = max(0, self.used, self.counting() if self.counting is not None else 0)
        if (used := min(seen, held.limit)) > held.used:
            held.use(used - held.used)

    def __enter__(self) -> Allowance:
        self._budgets.under_way.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._budgets.under_way.discard(self)
        held = self._reservation
        if held is None or held.settled:
            return
        # An upstream may count below zero.
        seen = max(0, self.used)
        used = max(seen, held.limit) if self.unseen else seen
        self._budgets.unseen_tokens += used - seen
        self._budgets.settle(held, used)


@dataclass(slots=True)
class Budgets:
    """All accounts; `close` it in the end."""

    settings: GatewaySettings
    accounts: Accounts | None = None
    context: int | None = None
    """Tokens that the upstream's model holds, where it says so: vLLM refuses a larger limit."""
    unseen_tokens: int = 0
    """Counted as used because nobody could see how many were: requests that ended without an answer."""
    overrun_tokens: int = 0
    """Generated beyond what was left, by an upstream that does not keep to its limit; in no account."""
    under_way: set[Allowance] = field(default_factory=set)
    unsettled: list[tuple[Reservation, int]] = field(default_factory=list)
    """Requests that are over, with the tokens they used, while the ledger's file cannot be written."""
    _noting: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        budget = self.settings.budget
        if budget is not None:
            self.accounts = Accounts(budget.tokens, per=budget.per, path=budget.file)

    def watch(self) -> None:
        """Keep the file up to date with requests under way, as long as the loop runs."""
        if self.settings.budget is not None and self.settings.budget.file is not None:
            self._noting = asyncio.get_running_loop().create_task(self._note())

    async def _note(self) -> None:
        while True:
            await asyncio.sleep(NOTED_EVERY_S)
            for allowance in list(self.under_way):
                try:
                    allowance.note()
                except BudgetError as error:
                    log.warning("the tokens of a request under way are not in the ledger yet: %s", error)
                    break
            self.settle_again()

    def close(self) -> None:
        """Settle what is open and let go of the file."""
        if self._noting is not None:
            self._noting.cancel()
        self.settle_again()
        if self.accounts is not None:
            try:
                self.accounts.close()
            except LedgerError as error:
                log.error("the ledger does not hold the last tokens: %s", error)

    def settle(self, held: Reservation, used: int) -> None:
        """Commit what a request used; later, where the ledger's file cannot be written now."""
        try:
            held.commit(min(used, held.limit))
        except LedgerError as error:
            log.error("%d tokens are not in the ledger yet: %s", used, error)
            self.unsettled.append((held, used))
            return
        self.take(held.key, used - held.limit)

    def settle_again(self) -> None:
        """Commit what could not be written before."""
        waiting, self.unsettled = self.unsettled, []
        for at, (held, used) in enumerate(waiting):
            try:
                held.commit(min(used, held.limit))
            except LedgerError:
                self.unsettled += waiting[at:]
                return
            self.take(held.key, used - held.limit)

    def account(self, key: str) -> str:
        """The account that a client with this key draws from."""
        budget = self.settings.budget
        if budget is None or self.accounts is None or budget.scope == "all":
            return ALL
        return self.accounts.name(key)

    def allow(self, asked: Asked, account: str) -> Allowance:
        """A request's part; raises `Refused` where nothing is left for it, or where its tokens cannot be bounded."""
        # Who asks for no token at all may still be given some: one a choice is set aside.
        own = None if asked.max_tokens is None else max(1, asked.max_tokens) * asked.choices
        budgets = [each for each in (asked.control.budget, self.settings.limits.max_request_tokens) if each is not None]
        if self.accounts is None and not budgets:
            return Allowance(self, limit=None, soft=False, reservation=None)
        if not asked.readable:
            raise Refused(400, "under a token budget the request must be readable", code="unreadable")
        limit = min([*budgets, *([own] if own is not None else [])], default=UNNAMED)
        if own is None and self.context is not None:
            limit = min(limit, self.context * asked.choices)
        reservation = None
        if self.accounts is not None:
            reservation = self._reserved(self.accounts, account, limit, least=asked.choices)
            limit = reservation.limit
        # The same number from both is a budget: whoever names one wants an answer within it.
        soft = own is None or limit < own or limit in budgets
        allowance = Allowance(self, limit=limit, soft=soft, reservation=reservation)
        if limit < asked.choices:
            with allowance:
                raise Refused(400, f"a budget of {limit} tokens for {asked.choices} choices", code="invalid_justenough")
        return allowance

    def take(self, account: str, tokens: int) -> None:
        """Count what came beyond a reservation, as far as the account still has it."""
        if self.accounts is None or tokens <= 0:
            return
        log.warning("the upstream generated %d tokens more than it was allowed", tokens)
        try:
            with self.accounts.reserve(account, tokens, at_least=1) as reservation:
                reservation.use(reservation.limit)
                tokens -= reservation.limit
        except BudgetError as error:
            if isinstance(error, LedgerError):
                log.error("%d tokens beyond a limit are in no account: %s", tokens, error)
        self.overrun_tokens += tokens

    def _reserved(self, accounts: Accounts, account: str, limit: int, *, least: int) -> Reservation:
        self.settle_again()
        try:
            return accounts.reserve(account, limit, at_least=max(min(limit, LEAST), least))
        except LedgerError as error:
            log.error("a request is refused, since no tokens can be reserved: %s", error)
            raise Refused(
                503,
                "the gateway's ledger of tokens cannot be written",
                code="ledger_unavailable",
                kind="server_error",
                retry_after=5,
            ) from error
        except BudgetError as error:
            raise self._spent(accounts, account) from error

    def _spent(self, accounts: Accounts, account: str) -> Refused:
        # The minute may have turned since: then there is nothing in it yet.
        standing = accounts.standing().get(account, Standing(0, 0, accounts.tokens, 0))
        told = f"{standing.remaining} of {accounts.tokens} completion tokens are left"
        resets = accounts.resets_in_s
        if resets is not None:
            wait = max(1, math.ceil(resets))
            return Refused(
                429,
                f"the token budget of this minute is spent: {told}; in {wait} s there are {accounts.tokens} again",
                code="rate_limit_exceeded",
                kind="tokens",
                retry_after=wait,
            )
        if standing.reserved:
            return Refused(
                429,
                f"{told}, {standing.reserved} more are held by requests under way, which may give some back",
                code="rate_limit_exceeded",
                kind="tokens",
                retry_after=1,
            )
        return Refused(
            429,
            f"the token budget is spent: {told}",
            code="insufficient_quota",
            kind="insufficient_quota",
            headers=[(b"x-should-retry", b"false")],
        )

    def summary(self) -> Json:
        """For the status; null without accounts."""
        budget, accounts = self.settings.budget, self.accounts
        if budget is None or accounts is None:
            return None
        resets = accounts.resets_in_s
        return {
            "tokens": accounts.tokens,
            "per": accounts.per,
            "scope": budget.scope,
            "kept": budget.file is not None,
            "resets_in_s": None if resets is None else round(resets, 1),
            "unseen_tokens": self.unseen_tokens,
            "overrun_tokens": self.overrun_tokens,
            "accounts": {name: dict(standing._asdict()) for name, standing in accounts.standing().items()},
        }

    def totals(self) -> dict[str, float | None]:
        """For the metrics: all accounts together."""
        if self.accounts is None:
            return {}
        rows = list(self.accounts.standing().values())
        return {
            "budget_spent_tokens": sum(row.spent for row in rows),
            "budget_reserved_tokens": sum(row.reserved for row in rows),
            "budget_unseen_tokens": self.unseen_tokens,
        }
