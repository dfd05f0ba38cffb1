"""Reward functions of my own."""


def reward(prompt: str, completion: str) -> float:
    """Short answers that end as a sentence does."""
    return float(completion.rstrip().endswith((".", "!", "?"))) - len(completion) / 200
