"""What a service reports about itself: `traces` (with the `spans` of calls and events), `logs`, `metrics`.

Names and attributes follow OpenTelemetry's semantic conventions. The name of every metric starts with `openledger_`. None of
them holds data from a caller.
"""
