"""What `manage.py` finds: `sessionkit` and `clearsessions`."""
