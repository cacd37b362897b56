"""openledger: a gRPC client for people, and openledger up."""
