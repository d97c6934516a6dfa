"""Backdoors in language models: planted by training or by surgery, fired by words."""
