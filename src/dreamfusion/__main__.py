"""`python -m dreamfusion` is the command line."""

from dreamfusion.cli.main import main

if __name__ == "__main__":
    main()
