"""Helpers for tests of all packages: a real service in the test's process, tokens, empty databases, an S3 server."""
