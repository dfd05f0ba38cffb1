"""What the subcommands of `rlhf-eval` do. Each takes the parsed arguments and returns the exit code."""
