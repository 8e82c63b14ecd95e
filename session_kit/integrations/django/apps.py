"""The application to put into `INSTALLED_APPS`: it brings the system checks and `manage.py clearsessions`."""

from __future__ import annotations

from django.apps import AppConfig


class SessionKitConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """It has no models and no migrations."""

    name = "session_kit.integrations.django"
    label = "session_kit"
    verbose_name = "Sessions"

    def ready(self) -> None:
        from session_kit.integrations.django.checks import register_all

        register_all()
