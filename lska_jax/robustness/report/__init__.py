"""The report of a robustness benchmark: tables, files, pictures and one page that shows them.

What goes in are ``Summary`` objects, one for each model; nothing is computed here that a person
could take for a score. A score that is not in a summary is a visible hole in every output.
"""

from lska_jax._lazy import lazy_attributes

__getattr__, __all__ = lazy_attributes(
    __name__,
    {
        "corruption_grid": "lska_jax.robustness.report.grids",
        "latex": "lska_jax.robustness.report.paper_tables",
        "markdown": "lska_jax.robustness.report.paper_tables",
        "paper_grid": "lska_jax.robustness.report.grids",
        "results_csv": "lska_jax.robustness.report.results_table",
        "results_json": "lska_jax.robustness.report.results_table",
        "set_grid": "lska_jax.robustness.report.grids",
        "terminal_table": "lska_jax.robustness.report.terminal",
        "write_report": "lska_jax.robustness.report.write",
    },
)
