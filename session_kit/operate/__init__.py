"""What an operator does with a store: look at its sessions, end one, move them all, examine it.

Plain functions that return values and print nothing. `session_kit.operate.commands` makes the lines of a command line
of them, for `session-kit` and for those of Django, Flask, Quart and Litestar.
"""
