"""One small application in each framework, the same routes in all: what `tests/test_frameworks.py` is about."""
