"""The directory that Triton is pointed at: its layout and its configurations."""
