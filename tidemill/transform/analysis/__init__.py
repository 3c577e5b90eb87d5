"""The analysis: TFT's nodes, computed by threads over units of rows."""
