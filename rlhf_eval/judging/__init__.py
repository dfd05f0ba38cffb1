"""Judging: what a judge is asked, how its answers are read, and the scores made from them."""
