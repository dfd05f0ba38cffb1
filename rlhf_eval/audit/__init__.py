"""Evidence on how far a reward model's benchmark numbers can be believed."""
