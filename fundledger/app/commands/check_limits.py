"""CLI command `fundledger ratelimit check FILE`: print the policies of a limits file, or the first error."""

from pathlib import Path

from fundledger.app.http.admission.policies import TYPES_IGNORED
from fundledger.ratelimit.quota.policies import BadPolicies, parse
from fundledger.settings import BadSetting


def check_policies(path: Path, workers: int) -> int:
    """Print the policies of a limits file and return 0. If the file is invalid, print its first error and return 1.

    Raises BadSetting if the file cannot be read.
    """
    try:
        policies = parse(path.read_text())
    except OSError as error:
        raise BadSetting(f"{path}: {error.strerror}") from None
    except (BadPolicies, UnicodeDecodeError) as bad:
        print(f"{path}: {bad}")
        return 1
    for policy in policies.all():
        leased = policy.leased(workers)
        mode = f"leased, {leased} for each of {workers} workers" if leased else "strict"
        subjects = "" if policy.only is None else f" of {', '.join(sorted(policy.only))}"
        classes = "" if policy.classes is None else f", only {', '.join(sorted(policy.classes))}"
        shadow = ", shadow" if policy.shadow else ""
        rate = f"{policy.rate.per_second:g}/s, burst {policy.rate.burst}"
        print(f"{policy.name}: {rate} for each {policy.kind}{subjects}{classes}; {mode}{shadow}")
    if policies.types:
        print(f"types: {TYPES_IGNORED}")
    print(f"version {policies.version}: valid")
    return 0
