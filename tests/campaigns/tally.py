"""What became of the faults of one kind."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """How many faults of a kind were tried; ``failures`` names each that the command did not get over, and how."""

    kind: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    remark: str = ""

    def judge(self, name: str, wrong: list[str]) -> None:
        """Counts one fault, and what went wrong after it."""
        self.tried += 1
        if wrong:
            self.failures.append(f"{self.kind}, {name}: {'; '.join(wrong)}")
            print(f"    FAILED {ascii(self.failures[-1])[1:-1]}", flush=True)


def table(tallies: list[Tally]) -> str:
    """Returns a line a kind: kind, tried, failed."""
    lines = [f"{'kind':44}{'tried':>7}{'failed':>8}"]
    lines += [f"{one.kind:44}{one.tried:7}{len(one.failures):8}{one.remark and '  ' + one.remark}" for one in tallies]
    tried, failed = sum(one.tried for one in tallies), sum(len(one.failures) for one in tallies)
    return "\n".join([*lines, f"{'all':44}{tried:7}{failed:8}"])
