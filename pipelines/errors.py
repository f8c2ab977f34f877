"""What can go wrong in a pipeline, as a tree; each class carries the exit code that the command line returns.

PipelineError            2   something the user can mend
├── ConfigError          2   a configuration file or an override is wrong; carries every mistake
├── InputError           2   data cannot be read or are broken beyond the allowed share
├── OutputError          2   a result cannot be written where it should go
├── GateRefused          1   a review or promotion gate said no
├── Degraded             4   a fallback was used and the job is configured strict
└── TryLater            75   a lock is held or the registry is away
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of every error that a user of the command line can mend."""

    exit_code = 2


class ConfigError(PipelineError):
    """A configuration is wrong; `mistakes` holds one sentence for each, with file, key and remedy."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{count} in the configuration:\n" + "\n".join(f"  - {m}" for m in mistakes))


class InputError(PipelineError):
    """Data cannot be read, or too much of them is broken."""

    @classmethod
    def listing(cls, subject: str, mistakes: list[str]) -> InputError:
        """One error for many mistakes, a sentence each."""
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        return cls(f"{count} in {subject}:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))


class OutputError(PipelineError):
    """A result cannot be written where it should go."""


class GateRefused(PipelineError):
    """A review or promotion gate said no."""

    exit_code = 1


class Degraded(PipelineError):
    """A fallback was used, and the job is configured to treat that as a failure."""

    exit_code = 4


class TryLater(PipelineError):
    """A lock is held by another run, or the registry is away."""

    exit_code = 75
