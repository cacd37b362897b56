"""Reconciliation: counts what was lost and what exists twice, and names each thing.

It compares four independent sources: the facts that every service serves (`openledger.audit.v1`), the event log, the objects,
and the chain. No database is read. Every service must run, because only it reads its own tables. Each module follows one kind
of thing from link to link:

    contributions.py   a record, the event about it, its place in the newest snapshot
    snapshots.py       a snapshot and a model version, and every service that must know them
    answers.py         an answer: write-ahead log, event, attribution record, event
    settlement.py      an attributed answer: one leaf of one batch, the batch on the chain once
    money.py           fees in = payouts + dust, from an answer to a reward root
    consumers.py       every event before a committed offset took effect, or is a dead letter

A thing that has not reached a link yet is *waiting*. A platform at rest has nothing that waits. A running platform changes
between two reads, so suspects are read a second time: only what both iterations find is reported (reconciliation.py).
"""
