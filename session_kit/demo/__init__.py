"""The demo: a small web application (`app`), its server (`server`), and a visitor that checks it (`check`)."""
