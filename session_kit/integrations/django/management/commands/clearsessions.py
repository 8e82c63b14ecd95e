"""`manage.py clearsessions`, for projects that do without `django.contrib.sessions` and its table."""

from django.contrib.sessions.management.commands.clearsessions import Command

__all__ = ["Command"]
