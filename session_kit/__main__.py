"""`python -m session_kit` is `session-kit`."""

from session_kit.cli import main

if __name__ == "__main__":
    main()
