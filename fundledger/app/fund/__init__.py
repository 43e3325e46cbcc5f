"""The fund service as processes: its HTTP workers and its daemons."""
