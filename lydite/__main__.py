"""`python -m lydite`."""

from lydite.cli.app import main

if __name__ == "__main__":
    main()
