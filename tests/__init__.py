"""One suite for the whole dispatcher; builders are in ground.py."""
