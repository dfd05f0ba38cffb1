"""The embedded small world in which the truth is known: what `make demo` and the tests run on."""
