"""The training itself: runs inside a Ray job, imports torch, knows nothing of databases, events or gRPC."""
