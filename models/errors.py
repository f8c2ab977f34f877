"""What can go wrong in the models, as a tree.

ModelError
├── TableError      a table does not fit its schema; carries every problem at once
├── LogOrderError   events are older than the state that they should extend
├── ArtefactError   a saved model cannot be read (damaged, or of another format)
└── RegistryError   the MLflow registry refused or is away
    └── UnknownVersion   it answers, but has no such version or alias
"""


class ModelError(Exception):
    """Root of every error that the models raise for something their caller can mend."""


class TableError(ModelError):
    """A table does not fit its schema; `problems` holds one sentence for each mistake found."""

    def __init__(self, table: str, problems: list[str]) -> None:
        self.table = table
        self.problems = problems
        super().__init__(f"Table {table!r} cannot be used:\n" + "\n".join(f"  - {p}" for p in problems))


class LogOrderError(ModelError):
    """Events are older than the state that they should extend."""


class ArtefactError(ModelError):
    """A saved model cannot be read: damaged, incomplete, or of another format."""


class RegistryError(ModelError):
    """The MLflow registry refused a request or cannot be reached."""


class UnknownVersion(RegistryError):
    """The registry answers, but has no such version or alias: asking again later does not help."""
