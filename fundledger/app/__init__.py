"""Everything that runs: HTTP services, their processes, and the command line."""

import gc

# This comes before the other imports of a process. They create a hundred thousand objects and no garbage.
gc.set_threshold(200_000, 20, 100)
