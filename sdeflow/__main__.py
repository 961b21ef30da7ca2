"""``python -m sdeflow`` is the program ``sdeflow``."""

from sdeflow.cli import main

if __name__ == "__main__":
    main()
