"""`python -m cluster` is the console script `taskheat`."""

from cluster.cli import main

if __name__ == "__main__":
    main()
