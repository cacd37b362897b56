"""One base model, many adapters, streamed."""
