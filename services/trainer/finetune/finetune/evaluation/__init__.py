"""Base and tuned model on the same items: suites, scoring, and the report that the promotion gate rests
on."""
