"""`python -m dreamfusion` is the command line."""

from dreamfusion.cli import main

if __name__ == "__main__":
    main()
