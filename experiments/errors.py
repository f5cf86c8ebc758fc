"""Exit codes of `run.py` and `python -m experiments`, one class each (the README lists them).

0 is success, 1 is a bug (with its traceback), 2 a bad setting; the classes below are the rest. Those that every
program may meet are of `roadmap.errors`.
"""

from roadmap.errors import ResourceError, StorageError, UserError

__all__ = ["ResourceError", "StorageError"]


class ConfigError(UserError):
    """A setting with an impossible value, or settings that contradict each other."""

    exit_code = 2


class DataError(UserError):
    """A data set that is missing, damaged beyond the allowed share, or of another shape than configured."""

    exit_code = 3


class DivergedError(UserError):
    """The loss stopped being finite; the run is sealed as diverged."""

    exit_code = 4


class ClaimedError(UserError):
    """Another live process owns this run, or has taken it over."""

    exit_code = 6


class MissingExtraError(UserError):
    """An optional dependency is not installed; the message says what to install."""

    exit_code = 7


class LostRankError(UserError):
    """Another process of a run over several ranks has ended or shows no life; this one stops too."""

    exit_code = 8


class StudyError(UserError):
    """A study has ended with runs that failed, diverged or are still to be done."""

    exit_code = 9


class InterruptedRun(UserError):
    """A signal asked the run to stop; the same command continues it."""

    exit_code = 75


class StoppedWaiting(InterruptedRun):
    """The same, of one rank that waited for its data workers: it leaves without the others, and saves nothing."""


# What the machine and not the run is to blame for: such a run is half done, and a study's same command continues it.
OF_MACHINE = (StorageError, MissingExtraError, LostRankError, ResourceError)
