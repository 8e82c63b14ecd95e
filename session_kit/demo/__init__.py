"""The demo: an application (`app`), its pages (`page`), its server (`server`), and a visitor to check it (`check`)."""
