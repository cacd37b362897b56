"""Binds a database to the issuer whose subjects its rights belong to.

Owners, contributors and approvers are stored by their subject (`sub`), which is unique only at its issuer: the `ann` of another
provider may be another person. A service accepts tokens of one issuer, so the database records which one, and a service
with another issuer does not start on it.

The table is no part of a service's schema, like Alembic's own: it exists in every database, whatever its revision.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Connection, Engine, Integer, MetaData, String, Table, select

from servicekit.database.migrate import locked
from servicekit.errors import StartupError

TABLE = "principals_issuer"
_TABLE = Table(
    TABLE,
    MetaData(),
    Column("only_row", Integer, CheckConstraint("only_row = 1"), primary_key=True),
    Column("issuer", String, nullable=False),
)


def bind_issuer(engine: Engine, package: str, issuer: str, replaces: str = "") -> None:
    """Records the issuer of a database's principals at the first start, and compares it at each later one.

    Args:
        engine: the service's database.
        package: the service's package, whose migrations take the same lock.
        issuer: the `iss` of the tokens that the service accepts.
        replaces: an earlier issuer whose subjects are the same people; the database is then bound to `issuer`.

    Raises:
        StartupError: the database is bound to another issuer.
    """
    locked(engine, package, lambda connection: _bind(connection, package, issuer, replaces))


def _bind(connection: Connection, package: str, issuer: str, replaces: str) -> None:
    _TABLE.create(connection, checkfirst=True)
    bound = connection.execute(select(_TABLE.c.issuer)).scalar_one_or_none()
    if bound is None:
        connection.execute(_TABLE.insert().values(only_row=1, issuer=issuer))
    elif bound not in (issuer, replaces):
        raise StartupError(
            f"the rights in the database of {package} belong to subjects of the issuer {bound!r}, and auth_issuer is {issuer!r},"
            " where the same subject may be another person: set OPENLEDGER_AUTH_ISSUER back, or, if every subject is the same"
            f" person at both, set OPENLEDGER_AUTH_ISSUER_REPLACES={bound}"
        )
    elif bound != issuer:
        connection.execute(_TABLE.update().values(issuer=issuer))
