"""What tests, examples and benchmarks are made of."""
