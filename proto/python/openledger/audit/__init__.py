"""Generated from proto/; see scripts/generate_proto.sh."""
