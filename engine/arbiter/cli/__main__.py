"""`python -m arbiter.cli`: the same as `arbiter`."""

from arbiter.cli.app import main

if __name__ == "__main__":
    main()
