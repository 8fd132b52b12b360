"""Hides the package rich from the processes that tests start: Holdfast is installed without it.

Only import-linter needs it. structlog would import it in every process, which takes a tenth of a second of CPU.
"""

raise ImportError("rich is not installed where Holdfast runs")
