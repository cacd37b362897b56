"""The client of an invocation: its addresses, its caller's token, its TLS."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from openledger_client import Addresses, Client, Token
from openledger_client.auth import token_from_environment
from openledger_client.calls import Policy
from openledger_client.retries import Retries
from openledger_client.tls import Tls

if TYPE_CHECKING:
    from openledger_cli.context import Session


def open_client(of: Session) -> Client:
    """Returns the client of a session: it calls with the given token, else as the principal of the development issuer."""
    token: Token = of.token or token_from_environment() or _development(of)
    return Client(
        Addresses(state_dir=of.state_dir),
        token=token,
        tls=Tls.from_environment(),
        policy=Policy(deadline_s=of.deadline_s, sleep=time.sleep if of.as_json else SaidOnce(time.sleep)),
    )


class SaidOnce:
    """Waits between the attempts of calls, and says so once when the waits grow long."""

    AFTER_S = 3.0

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._waited_s = 0.0

    def __call__(self, wait_s: float) -> None:
        """Waits; before the wait that reaches `AFTER_S` it says on standard error what is waited for."""
        before, self._waited_s = self._waited_s, self._waited_s + wait_s
        if before < self.AFTER_S <= self._waited_s:
            print(
                f"openledger: no answer, trying again for up to {Retries().give_up_after_s:g} s; Ctrl-C stops",
                file=sys.stderr,
            )
        self._sleep(wait_s)


def _development(of: Session) -> Token:
    from servicekit.auth.development_token import DevelopmentToken  # here: who has a token needs none of it

    return DevelopmentToken(of.state_dir, of.principal, of.roles)
