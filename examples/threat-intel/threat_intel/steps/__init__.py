"""The demo's steps, one file each: `execute(run) -> Outcome`."""
