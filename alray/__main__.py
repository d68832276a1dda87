"""`python -m alray` is the same door as `alray`."""

from alray.cli.app import main

if __name__ == "__main__":
    main()
