"""`python -m cluster`, and the console script `taskheat`."""

import sys

from cluster.origins import shadowed_packages


def main() -> None:
    """Run the command line, unless it would import another distribution's packages instead of ours."""
    if faults := shadowed_packages():
        print("\n".join(f"error: {fault}" for fault in faults), file=sys.stderr)
        sys.exit(2)
    from cluster.cli import main as commands

    commands(prog_name="taskheat")


if __name__ == "__main__":
    main()
