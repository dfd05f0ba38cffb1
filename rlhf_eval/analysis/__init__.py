"""From run directories to ranking, correlation, figures and report. Reads files only; never imports torch."""
