"""`python -m analyzer` is the `mergescope` command."""

from analyzer.cli import main

if __name__ == "__main__":
    main()
