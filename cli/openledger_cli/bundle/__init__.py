"""A bundle: everything needed to recheck one answer's story without the platform, and the check itself."""
