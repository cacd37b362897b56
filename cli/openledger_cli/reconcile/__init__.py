"""The reconciler: counts what was lost and what stands twice, from what is written down alone.

It reads the services' databases, the inference service's write-ahead log, the event log, the object store and the
chain; no service needs to run, and none is asked. Each file here follows one kind of thing along its way:

    contributions.py   a record, the event about it, its place in the newest snapshot
    snapshots.py       a snapshot and a model version, and everyone who must have heard of them
    answers.py         an answer: write-ahead log, event, attribution record, event
    settlement.py      an attributed answer: exactly one leaf of one batch, the batch on the chain once
    money.py           fees in = payouts + dust, from an answer to a reward root
    deliveries.py      consumers: every event before a committed offset took effect or was moved aside

What a step has not reached yet is *waiting*: a platform at rest has nothing that waits. A platform that runs changes
between two reads, so what looks lost or doubled is looked for again: only what is found twice counts (look.py).
"""
