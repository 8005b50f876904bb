"""Test data for tests, examples and benchmarks."""
