"""From run records to the paper's figure: tables, statistics, figures and a report. Needs neither torch nor hydra."""
