"""Benchmarks for maintainers: they need a clone, its tests' applications and servers, and the group `peers`.

peers.py    the same ten requests through session_kit and its peers; served.py: a few under a real server
targets.py  what sessions may cost, as ratios
growth.py   how cost grows with the number of entries
codecs.py   what a codec costs by itself
owners.py   what a list of sessions costs a user who has many
apps.py     the applications: those of the tests, with sessions of ours, of a peer, or none
visits.py   who visits them, and a clock at their edge
results.py  what the commands share: how cases take turns, arguments, tables, and where results are kept

To see where the time of a request goes, put a profiler in front of one application:
`pyinstrument -m session_kit.benchmarks.maintainers.peers --measure Starlette:session_kit:memory`.
"""
