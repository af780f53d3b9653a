"""The options and arguments that commands share.

A file that cannot be read is refused by what reads it, as a wrong configuration and not as a wrong command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_CONFIG_HELP = "Configuration file; default: $REPLICATOR_CONFIG, or /etc/replicator/replicator.yaml."
Config = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="PATH", help=_CONFIG_HELP, show_default=False, readable=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
NeverAsks = Annotated[bool, typer.Option("--yes", help="Accepted for scripts; this command never asks.")]
Rebuilt = Annotated[bool, typer.Option("--rebuilt", help="The table there was re-created: discard its backlog.")]
RestingRegion = Annotated[str | None, typer.Option("--region", help="Only this target region of the rule.")]
RuleName = Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")]
OnlyRule = Annotated[str | None, typer.Option("--rule", metavar="RULE", help="Only this rule.", show_default=False)]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Reason, stored and shown.", show_default=False)]
Stream = Annotated[
    str | None,
    typer.Option(
        "--stream", metavar="ARN", help="Its stream, if several have this shard; or region:table.", show_default=False
    ),
]
Table = Annotated[
    str | None,
    typer.Option("--table", metavar="TABLE", help="Which table, if the rule selects several.", show_default=False),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Only this item; written as for `inspect`.", show_default=False),
]
Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only this kind, e.g. put_put.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only since this time, or for a span such as 2h.", show_default=False),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most this many, newest first.", show_default=False)
]
ParkedId = Annotated[str, typer.Argument(metavar="ID", help="Id of the row, or at least four characters of it.")]
EntryId = Annotated[str, typer.Argument(metavar="ID", help="Id of the entry, or at least four characters of it.")]
