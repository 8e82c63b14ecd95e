"""Benchmarks: what `session-kit bench` runs, the comparison with peers, the targets, and how cost grows.

measure.py    how time is taken, and the noise of the machine told
"""
