"""`python -m roadmap`: a ladder as designs; beside it `explain`, `changes`, `golden` and `readme`. No torch."""

import sys
from collections.abc import Sequence

from roadmap.errors import UserError
from roadmap.pipes import quietly, refused


def main(arguments: Sequence[str] | None = None, prog: str = "python -m roadmap") -> int:
    """Run the command, which calls itself `prog`; returns the exit code (0, or 2 with one line on stderr)."""
    try:
        from roadmap.show.cli import run  # reads the steps: a file of one's own that is wrong is a user's error

        run(arguments, prog)
    except UserError as error:
        return refused(error)
    return 0


if __name__ == "__main__":
    sys.exit(quietly(main))
