"""The options and arguments that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_CONFIG_HELP = "Configuration file; else REPLICATOR_CONFIG, else /etc/replicator/replicator.yaml."
Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="PATH", help=_CONFIG_HELP, show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
NeverAsks = Annotated[bool, typer.Option("--yes", help="For scripts; this command never asks.")]
Rebuilt = Annotated[bool, typer.Option("--rebuilt", help="Its table was made anew: forget what it missed.")]
RestingRegion = Annotated[str | None, typer.Option("--region", help="Only in this region, which the rule writes.")]
RuleName = Annotated[str, typer.Argument(metavar="RULE", help="Name of the rule.")]
OnlyRule = Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only of this rule.", show_default=False)]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept and shown.", show_default=False)]
Stream = Annotated[
    str | None,
    typer.Option(
        "--stream", metavar="ARN", help="Its stream, when several have it; or region:table.", show_default=False
    ),
]
Table = Annotated[
    str | None,
    typer.Option("--table", metavar="TABLE", help="Which one, when the rule chooses several.", show_default=False),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Only of this item; written as for `inspect`.", show_default=False),
]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only of this kind, e.g. put_put.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only since then: a time, or a span such as 2h.", show_default=False),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the newest.", show_default=False)]
ParkedId = Annotated[str, typer.Argument(metavar="ID", help="Id of the row, or at least four characters of it.")]
EntryId = Annotated[str, typer.Argument(metavar="ID", help="Id of the entry, or at least four characters of it.")]
