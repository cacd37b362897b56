"""The story's steps, one file each: `run(telling) -> Outcome`."""
