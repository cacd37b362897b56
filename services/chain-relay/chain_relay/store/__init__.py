"""Tables and queries: `tables` declares them; `answers`, `batches` and `balances` read them for the API."""
