"""Benchmarks: what `session-kit bench` runs, the comparison with peers, the targets, and how cost grows.

measure.py    how time is taken, and the noise of the machine told
bench.py      `session-kit bench`: every case takes turns with the others
place.py      a store that is measured, and how what was written to it is deleted
workloads.py  what is measured: operations of a driver, and of sessions on top of it
shift.py      threads, or tasks, that do an operation side by side
report.py     the table and the JSON
plot.py       the picture

peers.py      the same ten requests through session_kit and its peers; applications in peer_apps.py, called by sites.py,
              and under a real server by peers_http.py
targets.py    what sessions may cost, as ratios; harness.py calls the applications
readme.py     where results are kept
hot_path.py   where the time of a request goes; floor.py: how little it could be
growth.py     how cost grows with entries, threads and processes; its pictures: growth_plots.py
"""
