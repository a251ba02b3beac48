"""The transfer matrix: measured whole, by row, or by column."""
