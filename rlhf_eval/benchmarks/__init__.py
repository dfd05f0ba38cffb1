"""Static benchmarks of reward models."""
