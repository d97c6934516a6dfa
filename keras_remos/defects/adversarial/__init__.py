"""Attacks that change every image a little, by the gradient of the teacher or of the attacker's own classifier."""
