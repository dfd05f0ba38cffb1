"""Many runs: which, where they execute, and the demonstration on the embedded lab."""
