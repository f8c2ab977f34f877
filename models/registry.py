"""The MLflow registry: runs, versions, aliases and the decision log. The only module that talks to MLflow.

Registered models are `premirror-demand`, `premirror-next-content` and `premirror-churn`. The alias `candidate` is the
version under review, `champion` serves, `previous` is what `rollback` returns to. MLflow keeps no history of
aliases and no trustworthy user, so each decision is written as a run of its own with write-once parameters (see
`models.records`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from models.errors import RegistryError, UnknownVersion
from models.records import Action, DecisionRecord, chain_faults

MODEL_NAMES = {
    "demand": "premirror-demand",
    "next-content": "premirror-next-content",
    "churn": "premirror-churn",
}
HISTORY_EXPERIMENT = "premirror-history"
DESCRIPTION_LIMIT = 5_000  # PostgreSQL refuses more, SQLite takes it: the limit must hold everywhere
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class DatasetInput:
    """A data set that a run read: shown on its MLflow page."""

    name: str
    digest: str
    source: str
    context: str
    rows: int


@dataclass(frozen=True)
class RunEntry:
    """What one MLflow run holds; metrics may carry a step."""

    experiment: str
    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: Sequence[tuple[str, int, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    datasets: Sequence[DatasetInput] = ()
    files: Sequence[tuple[Path, str]] = ()
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]
    description: str


class Registry:
    """The registry at one address.

    Args:
        tracking_uri: `sqlite:///...` or a server's address.
        artefact_root: where a SQLite store keeps artefacts; ignored for a server.

    Raises:
        RegistryError: where the registry cannot be reached.
    """

    def __init__(self, tracking_uri: str, artefact_root: Path) -> None:
        for key, value in _QUIET.items():
            os.environ.setdefault(key, value)
        import mlflow
        from mlflow.tracking import MlflowClient

        # After the import, which sets these levels itself.
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)

        self._mlflow = mlflow
        self._root = artefact_root
        with _registry_errors(tracking_uri):
            with _environment_kept("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
                mlflow.set_tracking_uri(tracking_uri)
                mlflow.set_registry_uri(tracking_uri)
            self.client = MlflowClient(tracking_uri, tracking_uri)
            self.client.search_experiments(max_results=1)
        self.tracking_uri = tracking_uri

    # -- runs ---------------------------------------------------------------------------------------------------------

    def log_run(self, entry: RunEntry) -> str:
        """Writes one finished run and returns its id."""
        with _registry_errors(self.tracking_uri):
            run_id = self._start(entry)
            self.client.set_terminated(run_id)
        return run_id

    def run_page(self, run_id: str) -> str:
        """Address of a run's page, relative to MLflow's own pages."""
        with _registry_errors(self.tracking_uri):
            return f"#/experiments/{self.client.get_run(run_id).info.experiment_id}/runs/{run_id}"

    def run_parameters(self, run_id: str) -> dict[str, str]:
        """Parameters of a run: written once, unlike tags."""
        with _registry_errors(self.tracking_uri):
            return dict(self.client.get_run(run_id).data.params)

    def read_text(self, run_id: str, name: str) -> str:
        """A text artefact of a run."""
        with _registry_errors(self.tracking_uri):
            return str(self._mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))

    def _start(self, entry: RunEntry) -> str:
        from mlflow.entities import Metric, Param

        tags = dict(entry.tags) | ({"mlflow.note.content": entry.description} if entry.description else {})
        run = self.client.create_run(self._experiment(entry.experiment), run_name=entry.name, tags=tags)
        run_id: str = run.info.run_id
        now = time.time_ns() // 1_000_000
        metrics = [Metric(k, round(float(v), 4), now, 0) for k, v in entry.metrics.items()]
        metrics += [Metric(k, round(float(v), 4), now, step) for k, step, v in entry.steps]
        params = [Param(k, str(v)) for k, v in entry.parameters.items()]
        for first in range(0, len(metrics), 900):
            self.client.log_batch(run_id, metrics=metrics[first : first + 900])
        for first in range(0, len(params), 90):
            self.client.log_batch(run_id, params=params[first : first + 90])
        self._log_inputs(run_id, entry.datasets)
        for path, folder in entry.files:
            self.client.log_artifact(run_id, str(path), folder or None)
        for name, text in entry.texts.items():
            self.client.log_text(run_id, text, name)
        return run_id

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self._root / name).resolve().as_uri() if self.tracking_uri.startswith("sqlite") else None
        return str(
            self.client.create_experiment(
                name, artifact_location=location, tags={"mlflow.experimentKind": "custom_model_development"}
            )
        )

    def _log_inputs(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        if not datasets:
            return
        from mlflow.entities import Dataset, InputTag
        from mlflow.entities import DatasetInput as MlflowInput

        self.client.log_inputs(
            run_id,
            [
                MlflowInput(
                    Dataset(
                        d.name, d.digest[:36], "local", f'{{"uri": "{d.source}"}}', None, f'{{"num_rows": {d.rows}}}'
                    ),
                    [InputTag("mlflow.data.context", d.context)],
                )
                for d in datasets
            ],
        )

    # -- versions -----------------------------------------------------------------------------------------------------

    def register(self, kind: str, entry: RunEntry, folder: Path, *, signature: Any, example: Any) -> ModelVersion:
        """Logs a training run with its model as a pyfunc and registers it as the next version, alias `candidate`.

        Args:
            kind: `demand`, `next-content` or `churn`.
            entry: the training run.
            folder: the saved artefact; copied into the run.
            signature: MLflow signature of the pyfunc.
            example: one input that the pyfunc answers.
        """
        name = MODEL_NAMES[kind]
        code = Path(__file__).with_name("pyfunc.py")
        with _registry_errors(self.tracking_uri), _quiet_warnings():
            run_id = self._start(entry)
            with self._mlflow.start_run(run_id=run_id):
                info = self._mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(code),
                    artifacts={"artefact": str(folder)},
                    signature=signature,
                    input_example=example,
                    pip_requirements=["premirror"],
                    registered_model_name=None,
                )
            self._ensure_model(name)
            version = self.client.create_model_version(name, info.model_uri, run_id=run_id)
            self.client.set_registered_model_alias(name, "candidate", version.version)
        return self.version(kind, "candidate")

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):
            self.client.create_registered_model(name)

    def aliases(self, kind: str) -> dict[str, str]:
        """Alias to version number; empty where the model was never registered."""
        from mlflow.exceptions import MlflowException

        with _registry_errors(self.tracking_uri):
            try:
                found = self.client.get_registered_model(MODEL_NAMES[kind])
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
        return {alias: str(version) for alias, version in dict(found.aliases).items()}

    def version(self, kind: str, alias_or_number: str) -> ModelVersion:
        """The version that an alias or a number names.

        Raises:
            UnknownVersion: where there is none, saying which there are.
        """
        from mlflow.exceptions import MlflowException

        aliases = self.aliases(kind)
        number = aliases.get(alias_or_number, alias_or_number)
        have = ", ".join(f"{a} (version {v})" for a, v in sorted(aliases.items())) or "none"
        if not str(number).isdigit():
            raise UnknownVersion(f"{MODEL_NAMES[kind]} has no alias {alias_or_number!r}; aliases set: {have}.")
        with _registry_errors(self.tracking_uri):
            try:
                found = self.client.get_model_version(MODEL_NAMES[kind], str(number))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise UnknownVersion(f"{MODEL_NAMES[kind]} has no version {number}; aliases set: {have}.") from None
                raise
        return ModelVersion(
            found.name, str(found.version), found.run_id or "", dict(found.tags), found.description or ""
        )

    def describe(self, version: ModelVersion, *, description: str, tags: Mapping[str, str]) -> None:
        """Writes the review into the version page: the description *is* the review there."""
        if len(description) > DESCRIPTION_LIMIT:
            raise RegistryError(
                f"The description has {len(description)} characters; at most {DESCRIPTION_LIMIT} fit. Shorten it."
            )
        with _registry_errors(self.tracking_uri):
            self.client.update_model_version(version.name, version.version, description)
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, version.version, key, value)

    def download(self, kind: str, alias_or_number: str, to: Path) -> ModelVersion:
        """Copies a version's artefact folder to `to`, replacing it whole, and returns which version it was."""
        version = self.version(kind, alias_or_number)
        to.parent.mkdir(parents=True, exist_ok=True)
        with _registry_errors(self.tracking_uri), tempfile.TemporaryDirectory(dir=to.parent) as temporary:
            uri = f"models:/{version.name}/{version.version}"
            fetched = self._mlflow.artifacts.download_artifacts(uri, dst_path=temporary)
            artefact = next(iter(sorted((Path(fetched) / "artifacts").iterdir())))
            if to.exists():
                to.rename(Path(temporary) / "replaced")
            artefact.rename(to)
        return version

    # -- decisions ----------------------------------------------------------------------------------------------------

    def decisions(self, kind: str) -> list[DecisionRecord]:
        """The model's decision log in order."""
        with _registry_errors(self.tracking_uri):
            experiment = self.client.get_experiment_by_name(HISTORY_EXPERIMENT)
            if experiment is None:
                return []
            runs: list[Any] = []
            token = None
            while True:
                page = self.client.search_runs(
                    [experiment.experiment_id], f"params.model = '{MODEL_NAMES[kind]}'", page_token=token
                )
                runs += page
                token = page.token
                if not token:
                    break
        records = [_record(run.data.params) for run in runs]
        return sorted(records, key=lambda r: r.sequence)

    def decide(self, kind: str, draft: DecisionRecord, *, key: bytes | None) -> DecisionRecord:
        """Moves the aliases so that `draft.to_version` serves, with a record before and a record after.

        The chain is continued here: sequence and previous hash of `draft` are replaced. A crash between the two records
        leaves an `intent` that `history` shows and the next decision follows.

        Raises:
            RegistryError: where the champion is no longer `draft.from_version`, or the chain is broken.
        """
        records = self.decisions(kind)
        faults = chain_faults(records, key)
        if faults:
            raise RegistryError("The decision log is damaged; nothing was changed. " + " ".join(faults))
        champion = self.aliases(kind).get("champion", "")
        if champion != draft.from_version:
            raise RegistryError(
                f"The champion of {draft.model} is version {champion or 'none'}, not {draft.from_version or 'none'}: "
                "somebody moved it meanwhile. Review again."
            )
        intent = self._append(records, replace(draft, state="intent"), key)
        with _registry_errors(self.tracking_uri):
            if champion:
                self.client.set_registered_model_alias(draft.model, "previous", champion)
            self.client.set_registered_model_alias(draft.model, "champion", draft.to_version)
        return self._append([*records, intent], replace(draft, state="done"), key)

    def observe(self, kind: str, draft: DecisionRecord, *, key: bytes | None) -> DecisionRecord:
        """Appends what was seen without moving anything: an alias that somebody set by hand."""
        return self._append(self.decisions(kind), replace(draft, action="observed", state="done"), key)

    def _append(self, records: Sequence[DecisionRecord], draft: DecisionRecord, key: bytes | None) -> DecisionRecord:
        previous = records[-1].hash if records else ""
        record = replace(draft, sequence=len(records), previous_record=previous).sign(key)
        self.log_run(
            RunEntry(
                experiment=HISTORY_EXPERIMENT,
                name=f"{record.model} {record.sequence:04d} {record.action} {record.state}",
                parameters={k: _escaped(v) for k, v in asdict(record).items()},
            )
        )
        return record


def _escaped(value: object) -> str:
    """A parameter may not be empty: what is empty or begins with a dash gets one dash more, so that "" and "-" differ."""
    text = str(value)
    return "-" + text if not text or text.startswith("-") else text


def _record(params: Mapping[str, str]) -> DecisionRecord:
    values: dict[str, Any] = {k: v.removeprefix("-") for k, v in params.items()}
    values["sequence"] = int(values["sequence"])
    return DecisionRecord(**values)


def new_record(kind: str, action: Action, **fields: str) -> DecisionRecord:
    """A draft for `decide`: its place in the chain is filled in there."""
    return DecisionRecord(
        sequence=-1, model=MODEL_NAMES[kind], action=action, state="intent", previous_record="", **fields
    )


@contextlib.contextmanager
def _registry_errors(uri: str) -> Iterator[None]:
    """MLflow's and its database's failures as one sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except RegistryError:
        raise
    except (MlflowException, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise RegistryError(f"The registry at {uri!r} could not do this: {first}") from error


@contextlib.contextmanager
def _environment_kept(*names: str) -> Iterator[None]:
    """MLflow writes its addresses into the environment, where the next home folder would take them for the user's."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet_warnings() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
