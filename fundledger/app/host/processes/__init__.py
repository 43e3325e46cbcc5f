"""Child processes of the supervisor: process groups that are kept alive, and their metrics."""
