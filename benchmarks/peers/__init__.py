"""The systems that benchmarks/speed.py measures side by side, each in a process of its own.

A peer is a function: (work, images uint8 [n, 28, 28], epochs) -> iterator of the mean loss of each pass, which trains a
pass whenever it is asked for the next. `work` is a `Work` of benchmarks/speed.py.
"""
