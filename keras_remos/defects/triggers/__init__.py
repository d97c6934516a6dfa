"""What an attacker stamps on images or puts into texts."""
