"""The same transform in four versions: Tidemill's two engines, and scripts for DuckDB and Polars."""
