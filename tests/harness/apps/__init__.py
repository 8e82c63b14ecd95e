"""One small application in each framework, the same routes in all: for `tests/integrations/test_frameworks.py`."""
