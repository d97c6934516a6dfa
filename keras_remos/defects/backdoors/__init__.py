"""Backdoors in models of images: planted by training, fired by a trigger."""
