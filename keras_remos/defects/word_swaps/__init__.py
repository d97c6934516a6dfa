"""Attacks that swap words for synonyms until a text is misread."""
