"""`python cli.py ...`: the command `propagate` from a checkout, without installing it."""

from propagate.app import main

if __name__ == "__main__":
    main()
