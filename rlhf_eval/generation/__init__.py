"""Answers of a policy to prompts."""
