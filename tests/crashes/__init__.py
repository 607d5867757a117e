"""kill -9 at every step of a delivery's life, in real processes, under load: what that costs.

`python -m tests.crashes --kills N`. A worker dies by its own hand at the very step (tripwire.py);
an operator counts what reaches it (operator.py), and the store is read afterwards (judge.py).
"""
