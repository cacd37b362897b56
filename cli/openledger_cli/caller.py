"""The client of an invocation: its addresses, its caller's token, its TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openledger_client import Addresses, Client, Token
from openledger_client.auth import token_from_environment
from openledger_client.calls import Policy
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
        policy=Policy(deadline_s=of.deadline_s),
    )


def _development(of: Session) -> Token:
    from servicekit.auth.development_token import DevelopmentToken  # here: who has a token needs none of it

    return DevelopmentToken(of.state_dir, of.principal, of.roles)
