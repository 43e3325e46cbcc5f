"""`python -m fundledger.benchmarks`."""

import sys

from fundledger.benchmarks.bench import main

sys.exit(main())
