"""What tests and benchmarks of several packages share: real servers on free ports, recorded data, and fakes."""
