"""The dispatcher in a simulated world: a virtual clock, played operators, faults; a seed gives one life of it, always.

Everything of ours is real, from the daemon down to SQL on SQLite in memory. Played are what lies outside: time, the
event loop's waiting, the operators, the kernel that ends a process, and the disk or server that fails.
"""
