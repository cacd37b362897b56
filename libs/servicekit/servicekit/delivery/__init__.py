"""Delivery of events between services: no event is lost, and none takes effect twice.

A service writes an event to its `outbox` in the transaction of the change that the event reports, and publishes it after the
commit. A `consumer` runs a handler in one transaction with an `inbox` row, and commits the offset afterwards: delivery is at
least once, the effect exactly once. Events that can never succeed go to `dead_letters`, up to a cap that halts the consumer.
`redrive` sends a dead letter again.
"""
