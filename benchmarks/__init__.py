"""Benchmarks: what `session-kit bench` runs. What only a clone can run is in `maintainers`, and is not installed.

measure.py        what timed operations say, and the noise of the machine
bench.py          `session-kit bench`: every case takes turns with the others
measured_store.py a store that is measured, and how what was written to it is deleted
workloads.py      what is measured: operations of a driver, and of sessions on top of it
shift.py          threads, or tasks, that do an operation side by side
report.py         the table and the JSON
plot.py           the picture
"""
