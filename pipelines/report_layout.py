"""What a section of a run report is made of, and the sections in the order shown."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.report_tables import Table


@dataclass(frozen=True)
class Heading:
    """A section's question, its name in the list of sections, and why it may be missing ("": needs no excuse)."""

    question: str
    name: str
    missing: str = ""


SECTIONS = {
    "changes": Heading("What changes?", "Change"),
    "comparison": Heading("Does it help?", "Outcome", "No replay was run, so nothing can be compared."),
    "ladder": Heading(
        "How close to a planner who knows the future?", "Clairvoyant", "No clairvoyant row was replayed."
    ),
    "money": Heading("What is it worth?", "Money", "No figures by hour were recorded."),
    "causes": Heading("Why is it not better?", "Causes", "No replay was run, so no byte has a cause."),
    "audiences": Heading("Does it help where few ask?", "Audiences", "Nobody counted how many ask for the same."),
    "plan": Heading("What does the plan hold?", "Plan", "No plan was made in this run."),
    "places": Heading("Where does it help?", "Places", "No bytes by place were recorded."),
    "forecasts": Heading("Is the forecast right?", "Forecast", "No forecast was compared with what happened."),
    "devices": Heading(
        "Do devices stay as forecast?", "Devices", "No device was up, so no forecast of one was compared."
    ),
    "calibration": Heading(
        "Does it know when it is not?", "Probabilities", "No probability was compared with what happened."
    ),
    "models": Heading("Which model is best?", "Models", "No model was evaluated in this run."),
}
"""Of a report, in the order shown: the questions of somebody who must decide."""

OTHER_SECTIONS = {
    "pairs": Heading("Which is better?", "Difference"),
    "sides": Heading("What did each achieve?", "Outcome"),
    "totals": Heading("What is each worth?", "Money"),
    "both-causes": Heading("Why is neither better?", "Causes"),
    "moved-places": Heading("Where does it change most?", "Places"),
    "settings": Heading("What differs?", "Settings"),
    "what-if": Heading("What would other devices bring?", "What if"),
}
"""Of the pages that compare runs or worlds."""


@dataclass(frozen=True)
class Figure:
    """SVG for a wide page and for a phone; `narrow` is empty where one serves both."""

    wide: str
    narrow: str = ""
    title: str = ""
    text: str = ""
    half: bool = False


@dataclass(frozen=True)
class Tile:
    """One key figure and what to hold it against."""

    name: str
    value: str
    beside: str


@dataclass(frozen=True)
class Section:
    """What stands under one heading."""

    key: str
    title: str
    lead: str = ""
    tiles: tuple[Tile, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    events: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the list of sections."""
        return (SECTIONS | OTHER_SECTIONS)[self.key].name
