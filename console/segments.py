"""`relay segments`: lists of visitors or people made in AudienceLab's Studio, which has no call to list them."""

from __future__ import annotations

import typer

from console.imports import help_of, import_segment

EXAMPLE = "Example: relay segments import 0b0b0b0b-1111-4222-8333-000000000002 --tag buyers"

segments = typer.Typer(
    help="Segments of AudienceLab's Studio.", no_args_is_help=True, epilog=EXAMPLE
)
segments.command("import", epilog=EXAMPLE, help=help_of("all rows of a segment"))(import_segment)


@segments.callback()
def group() -> None:
    """Segments of AudienceLab's Studio."""
