"""The running programs of fundledger (package `app`): HTTP services, their host processes, and the command line."""

import gc

# The threshold of garbage collection is raised before a process imports its other modules. The imports create a hundred
# thousand objects and no garbage.
gc.set_threshold(200_000, 20, 100)
