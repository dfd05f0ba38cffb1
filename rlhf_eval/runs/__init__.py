"""One run: its directory, its stages and where it came from."""
