"""Hostile and damaged files, and what nobody would type."""
