"""What people decide about single records: curators accept or reject, contributors take back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import events, paging, store
from datanet.access import check_curator, check_reader, check_withdrawer
from datanet.entities import RecordState, StoredRecord
from datanet.quality import REVIEW
from datanet.registry import find_contributor, find_datanet
from identity.names import ContributorName, DatanetName, RecordName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from servicekit.request_ids import RequestId

_MAX_PAGE_BYTES = 1 << 20


class Review:
    """Decides about records that are in the database, and shows them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def decide(
        self, principal: Principal, name: RecordName, accept: bool, reason: str, request: RequestId
    ) -> StoredRecord:
        """Accepts or rejects a record; the same decision again changes nothing, and a late repeat of a request that was
        done does not undo what was decided since.

        Raises NotFound, PermissionDenied, InvalidArgument for a rejection without a reason, FailedPrecondition for a
        record that was withdrawn or that a rule rejected.
        """
        _check_reason(reason)
        if not accept and not reason:
            raise InvalidArgument(
                "reason", "required", "a rejection must say why: its contributor will read it"
            )
        state = RecordState.ACCEPTED if accept else RecordState.REJECTED

        def change(session: Session) -> StoredRecord:
            datanet = find_datanet(session, DatanetName(name.datanet))
            check_curator(principal, datanet, "datanet.records.review")
            record = _find(session, name)
            if request.made(session) is not None:
                return record
            request.remember(session, str(name))
            if record.state is state and record.rule in ("", REVIEW):
                return record
            if record.state is RecordState.WITHDRAWN:
                raise FailedPrecondition("RECORD_WITHDRAWN", f"{name} was withdrawn", subject=str(name))
            if record.rule not in ("", REVIEW):
                message = (
                    f"{name} was rejected by the rule {record.rule}; its contributor can send it corrected"
                )
                raise FailedPrecondition("RECORD_REJECTED", message, subject=str(name), rule=record.rule)
            rule, why = ("", "") if accept else (REVIEW, reason)
            return _change(session, record, replace(record, state=state, rule=rule, reason=why))

        return run_in_transaction(self._engine, change)

    def withdraw(self, principal: Principal, name: RecordName, reason: str) -> StoredRecord:
        """Takes a record back: it leaves the next snapshot, and its text is no longer kept here.

        Its digest stays, so that nobody else can contribute the same text. Again changes nothing. Raises NotFound,
        PermissionDenied, FailedPrecondition for a record that a rule rejected: it is in no snapshot.
        """
        _check_reason(reason)

        def change(session: Session) -> StoredRecord:
            datanet = find_datanet(session, DatanetName(name.datanet))
            record = _find(session, name)
            contributor = find_contributor(session, ContributorName.parse(record.contributor))
            check_withdrawer(principal, datanet, contributor, record)
            if record.state is RecordState.WITHDRAWN:
                return record
            if record.rule not in ("", REVIEW):
                message = f"{name} was rejected by the rule {record.rule}: there is nothing to withdraw"
                raise FailedPrecondition("RECORD_REJECTED", message, subject=str(name), rule=record.rule)
            withdrawn = replace(record, state=RecordState.WITHDRAWN, rule="", reason=reason, content=b"")
            return _change(session, record, withdrawn)

        return run_in_transaction(self._engine, change)

    def list(
        self,
        principal: Principal,
        name: DatanetName,
        state: RecordState | None,
        contributor: ContributorName | None,
        page_size: int,
        page_token: str,
    ) -> tuple[Sequence[StoredRecord], str]:
        """A page in order of arrival, and the next page's token. Raises NotFound, PermissionDenied, InvalidArgument."""
        size, after = paging.size(page_size), paging.after_number(page_token)
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, name), "datanet.records.read")
            if contributor is not None:
                find_contributor(session, contributor)
            contributor_id = contributor.contributor if contributor else ""
            records = store.records.page(session, name, state, contributor_id, after, size + 1)
            return _page(records, size)


def _page(records: Iterator[StoredRecord], size: int) -> tuple[Sequence[StoredRecord], str]:
    """At most `size` records, fewer when they are long: an answer must fit into one message."""
    taken: list[StoredRecord] = []
    content_bytes = 0
    for record in records:
        content_bytes += len(record.content)
        if taken and (len(taken) == size or content_bytes > _MAX_PAGE_BYTES):
            return taken, paging.token(taken[-1].order)
        taken.append(record)
    return taken, ""


def _check_reason(reason: str) -> None:
    if "\x00" in reason:
        raise InvalidArgument("reason", "text", "holds a NUL character, which is no text")


def _find(session: Session, name: RecordName) -> StoredRecord:
    record = store.records.get(session, name)
    if record is None:
        raise NotFound("record", str(name))
    return record


def _change(session: Session, before: StoredRecord, after: StoredRecord) -> StoredRecord:
    """Writes a new state, the contributor's counts and the event."""
    store.records.change(session, after)
    counted = (RecordState.ACCEPTED, RecordState.PENDING, RecordState.REJECTED)
    deltas = [(after.state is state) - (before.state is state) for state in counted]
    store.contributors.count(session, ContributorName.parse(after.contributor), *deltas)
    events.contributions_recorded(session, [after])
    return after
