"""Downstream RLHF evaluation of reward models: train policies against them, score the policies, rank."""

__version__ = "0.1.0"
