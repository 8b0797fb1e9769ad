"""`python -m propagate` is the command `propagate`."""

from propagate.app import main

if __name__ == "__main__":
    main()
