"""Base models and adapters by digest, for every service that runs one."""
