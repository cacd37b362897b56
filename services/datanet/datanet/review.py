"""Decisions of people about single records: curators accept or reject, contributors withdraw."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from datanet import events, store
from datanet.access import check_curator, check_reader, check_withdrawer
from datanet.entities import Contributor, RecordState, StoredRecord
from datanet.quality import CONTRIBUTOR, REVIEW, WITHDRAWN
from datanet.quotes import quotes
from datanet.registry import find_contributor, find_datanet
from datanet.work_folders import WorkFolders
from identity.digest import digest_from_hex
from identity.names import ContributorName, DatanetName, RecordName
from servicekit.auth import Principal
from servicekit.database import is_damaged, reading, run_in_transaction
from servicekit.database.request_ids import RequestId
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from servicekit.lists import Page, Query


class Review:
    """Decides about stored records and lists them."""

    def __init__(self, engine: Engine, sealings: WorkFolders) -> None:
        self._engine = engine
        self._sealings = sealings

    def decide(
        self,
        principal: Principal,
        name: RecordName,
        *,
        accept: bool,
        reason: str,
        request: RequestId,
        of_contributor: bool | None = None,
    ) -> StoredRecord:
        """Accepts or rejects a record. Repeating the decision changes nothing, and a late repeat of a request that was
        carried out does not undo later decisions.

        A rejection `of_contributor` is about who sent the text: it is final, deletes the text here, and others may send it.

        Raises NotFound, PermissionDenied, InvalidArgument for a rejection without a reason or a subject (`of_contributor`
        None), FailedPrecondition for a record that was withdrawn or that a rule rejected.
        """
        _check_reason(reason)
        if not accept and not reason:
            raise InvalidArgument("reason", "required", "a rejection needs a reason for the contributor")
        if not accept:
            _check_subject(of_contributor)
        state = RecordState.ACCEPTED if accept else RecordState.REJECTED

        def change(session: Session) -> StoredRecord:
            datanet = find_datanet(session, DatanetName(name.datanet))
            check_curator(principal, datanet, "datanet.records.review")
            record = _find(session, name)
            if request.made(session) is not None:
                return record
            request.remember(session, str(name))
            rejected = CONTRIBUTOR if of_contributor else REVIEW
            if record.state is state and record.rule == ("" if accept else rejected):
                return record
            if record.state is RecordState.WITHDRAWN:
                raise FailedPrecondition("RECORD_WITHDRAWN", f"{name} was withdrawn", subject=str(name))
            if record.rule not in ("", REVIEW):
                message = (
                    f"{name} was rejected by the rule {record.rule}; its contributor can send a corrected one"
                )
                raise FailedPrecondition("RECORD_REJECTED", message, subject=str(name), rule=record.rule)
            if accept:
                return _change(session, record, replace(record, state=state, rule="", reason=""))
            if of_contributor:
                _check_no_quote(record, reason)
            content = b"" if of_contributor else record.content
            return _change(
                session,
                record,
                replace(record, state=state, rule=rejected, reason=reason, content=content),
            )

        decided = run_in_transaction(self._engine, change)
        if decided.rule == CONTRIBUTOR:
            self._sealings.forget(DatanetName(name.datanet))
        return decided

    def withdraw(
        self, principal: Principal, name: RecordName, reason: str, *, of_contributor: bool | None = None
    ) -> StoredRecord:
        """Withdraws a record: the next snapshot does not contain it, and its text is deleted here.

        Its contributor gives up the text: others may send it, and only the contributor's own repeat stays withdrawn. After a
        rejection by a person, or a withdrawal by the Datanet's owner or an administrator, no contributor can send it, unless
        that was `of_contributor`: about who sent it. Repeating it changes nothing. Raises NotFound, PermissionDenied,
        InvalidArgument for a reason that quotes the record or a withdrawal by others without a subject (`of_contributor`
        None), FailedPrecondition for a record that a rule rejected: no
        snapshot contains it.
        """
        _check_reason(reason)

        def change(session: Session, *, repaired: bool = False) -> StoredRecord:
            datanet = find_datanet(session, DatanetName(name.datanet))
            record = _find(session, name)
            contributor = _contributor_of(session, record)
            try:
                check_withdrawer(principal, datanet, contributor, record)
            except PermissionDenied:
                # Another contributor has the text by now: a repeat by the one who withdrew it changes nothing.
                own = store.records.withdrawn_by(session, name, principal.name)
                if own is None:
                    raise
                return own
            if record.state is RecordState.WITHDRAWN:
                return record
            if record.rule not in ("", REVIEW):
                message = f"{name} was rejected by the rule {record.rule}: there is nothing to withdraw"
                raise FailedPrecondition("RECORD_REJECTED", message, subject=str(name), rule=record.rule)
            _check_no_quote(record, reason)
            is_own = contributor is not None and principal.name == contributor.principal
            if not is_own:
                _check_subject(of_contributor)
            if repaired:
                store.records.repair(session, record.order, digest_from_hex(name.record))
            # A text that a person rejected stays taken: otherwise its contributor's withdrawal would undo that decision.
            rule = ""
            if is_own:
                rule = WITHDRAWN if record.rule != REVIEW else ""
            elif of_contributor:
                rule = CONTRIBUTOR
            withdrawn = replace(record, state=RecordState.WITHDRAWN, rule=rule, reason=reason, content=b"")
            return _change(session, record, withdrawn)

        try:
            withdrawn = run_in_transaction(self._engine, change)
        except DBAPIError as error:
            if not is_damaged(error):
                raise
            # The row changed on the disk, so SQLite does not find it in its indexes and cannot write it.
            withdrawn = run_in_transaction(self._engine, partial(change, repaired=True))
        self._sealings.forget(DatanetName(name.datanet))
        return withdrawn

    def list(
        self,
        principal: Principal,
        name: DatanetName,
        query: Query,
        *,
        state: RecordState | None = None,
        contributor: ContributorName | None = None,
        with_content: bool = True,
    ) -> Page[StoredRecord]:
        """Returns a page in order of arrival. Raises NotFound, PermissionDenied, InvalidArgument for a wrong query."""
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, name), "datanet.records.read")
            if contributor is not None:
                find_contributor(session, contributor)
            return store.records.page(
                session, name, query, state=state, contributor=contributor, with_content=with_content
            )


def _contributor_of(session: Session, record: StoredRecord) -> Contributor | None:
    """Returns a record's contributor; None where the record names none, because it changed on the disk."""
    try:
        return store.contributors.get(session, ContributorName.parse(record.contributor))
    except ValueError:
        return None


def _check_subject(of_contributor: bool | None) -> None:
    if of_contributor is None:
        message = "must be DECISION_SUBJECT_TEXT (no contributor may send it again) or DECISION_SUBJECT_CONTRIBUTOR (others may)"
        raise InvalidArgument("subject", "required", message)


def _check_reason(reason: str) -> None:
    if "\x00" in reason:
        raise InvalidArgument("reason", "text", "contains a NUL character; remove it")


def _check_no_quote(record: StoredRecord, reason: str) -> None:
    """The text is deleted and the reason stays."""
    if quotes(reason, record.content):
        message = "quotes the record, whose text is deleted; say why without its words"
        raise InvalidArgument("reason", "quote", message)


def _find(session: Session, name: RecordName) -> StoredRecord:
    record = store.records.get(session, name)
    if record is None:
        raise NotFound("record", str(name))
    return record


def _change(session: Session, before: StoredRecord, after: StoredRecord) -> StoredRecord:
    """Writes a new state, the contributor's counts and the event."""
    store.records.change(session, after)
    contributor = _contributor_of(session, after)
    if contributor is not None:
        store.contributors.count(
            session,
            ContributorName.parse(contributor.name),
            accepted=_change_of(RecordState.ACCEPTED, before, after),
            pending=_change_of(RecordState.PENDING, before, after),
            rejected=_change_of(RecordState.REJECTED, before, after),
        )
    events.contributions_recorded(session, [after])
    return after


def _change_of(state: RecordState, before: StoredRecord, after: StoredRecord) -> int:
    return (after.state is state) - (before.state is state)
