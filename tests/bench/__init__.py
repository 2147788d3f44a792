"""Benchmarks: what the collection takes, against a floor measured in the same run. Nothing here asserts a time."""
