"""Reward models of any kind behind one interface."""
