"""Commands, one file an area of the API."""
